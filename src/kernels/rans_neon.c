/* rans_neon.c: vectors of 8 rANS states in two registers of four, for rans_body.c.
 *
 * Nothing gathers here: numbers from tables come one at a time. But a step in which all symbols are 0, as in most of an
 * update, reads none.
 */
typedef struct {
    uint32x4_t a, b;
} rans8_vector;

/* What rans_body.c is to do: look for zeros in each vector of a step, since other symbols are dear; and read tables for
 * these, which takes fewer instructions than to compare. */
#define RANS_TOGETHER(vectors) 1
#define RANS_COMPARES 0

/* For every mask of 8 lanes: how many they are; the bytes of each lane's word among the next ones, or none; and those
 * of the lanes' words, moved up to the end. */
static uint8_t rans_expand[256][16], rans_compress[256][16], rans_count[256];

static void rans_prepare(void) {
    for (uint32_t mask = 0; mask < 256; mask++) {
        uint8_t below = 0, *place = rans_compress[mask] + 16 - 2 * __builtin_popcount(mask);
        for (uint32_t lane = 0; lane < 8; lane++) {
            const int takes = mask >> lane & 1;
            for (uint8_t byte = 0; byte < 2; byte++) {
                rans_expand[mask][2 * lane + byte] = takes ? (uint8_t)(2 * below + byte) : 0xFF;
                if (takes) *place++ = (uint8_t)(2 * lane + byte);
            }
            below = (uint8_t)(below + takes);
        }
        rans_count[mask] = below;
    }
}

#define RANS_BOTH(expression_a, expression_b) ((rans8_vector){expression_a, expression_b})

INLINE rans8_vector rans8_splat(uint32_t x) {
    return RANS_BOTH(vdupq_n_u32(x), vdupq_n_u32(x));
}
INLINE rans8_vector rans8_bytes(const uint8_t *p) {
    const uint16x8_t wide = vmovl_u8(vld1_u8(p));
    return RANS_BOTH(vmovl_u16(vget_low_u16(wide)), vmovl_high_u16(wide));
}
INLINE uint32x4_t rans_gather_4(const uint32_t *base, uint32x4_t index) {
    uint32x4_t found = vdupq_n_u32(0);
    found = vld1q_lane_u32(base + vgetq_lane_u32(index, 0), found, 0);
    found = vld1q_lane_u32(base + vgetq_lane_u32(index, 1), found, 1);
    found = vld1q_lane_u32(base + vgetq_lane_u32(index, 2), found, 2);
    return vld1q_lane_u32(base + vgetq_lane_u32(index, 3), found, 3);
}
INLINE rans8_vector rans8_gather(const uint32_t *base, rans8_vector index) {
    return RANS_BOTH(rans_gather_4(base, index.a), rans_gather_4(base, index.b));
}
/* of[index], index below 16: as bytes, of is as long as the table of an instruction. */
INLINE uint32x4_t rans_lookup_4(uint8x16x4_t of, uint32x4_t index) {
    const uint32x4_t bytes = vmlaq_u32(vdupq_n_u32(0x03020100), index, vdupq_n_u32(0x04040404));
    return vreinterpretq_u32_u8(vqtbl4q_u8(of, vreinterpretq_u8_u32(bytes)));
}
INLINE rans8_vector rans8_lookup(const uint32_t *of, rans8_vector index) {
    const uint8_t *p = (const uint8_t *)of;
    const uint8x16x4_t table = {{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
    return RANS_BOTH(rans_lookup_4(table, index.a), rans_lookup_4(table, index.b));
}
typedef rans8_vector rans8_mask;
/* A byte for each lane, from the lowest on: 0xFF where the mask is set. */
INLINE uint8x8_t rans_lanes(rans8_mask mask) {
    return vmovn_u16(vcombine_u16(vmovn_u32(mask.a), vmovn_u32(mask.b)));
}
/* Whether the mask is set anywhere. */
INLINE int rans_any(rans8_mask mask) {
    return vget_lane_u64(vreinterpret_u64_u16(vmovn_u32(vorrq_u32(mask.a, mask.b))), 0) != 0;
}
/* The mask as bits. */
INLINE uint32_t rans_bits(rans8_mask mask) {
    static const uint8_t bit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    return vaddv_u8(vand_u8(rans_lanes(mask), vld1_u8(bit)));
}
INLINE rans8_mask rans8_not_below(rans8_vector a, rans8_vector b) {
    return RANS_BOTH(vcgeq_u32(a.a, b.a), vcgeq_u32(a.b, b.b));
}
INLINE int rans8_all_below(rans8_vector a, rans8_vector b) {
    return !rans_any(rans8_not_below(a, b));
}
INLINE rans8_vector rans8_choose(rans8_mask mask, rans8_vector yes, rans8_vector no) {
    return RANS_BOTH(vbslq_u32(mask.a, yes.a, no.a), vbslq_u32(mask.b, yes.b, no.b));
}
INLINE int rans8_any_zero(rans8_vector x) {
    return rans_any(RANS_BOTH(vceqzq_u32(x.a), vceqzq_u32(x.b)));
}
INLINE rans8_vector rans8_and(rans8_vector a, rans8_vector b) {
    return RANS_BOTH(vandq_u32(a.a, b.a), vandq_u32(a.b, b.b));
}
INLINE rans8_vector rans8_add(rans8_vector a, rans8_vector b) {
    return RANS_BOTH(vaddq_u32(a.a, b.a), vaddq_u32(a.b, b.b));
}
INLINE rans8_vector rans8_sub(rans8_vector a, rans8_vector b) {
    return RANS_BOTH(vsubq_u32(a.a, b.a), vsubq_u32(a.b, b.b));
}
INLINE rans8_vector rans8_mullo(rans8_vector a, rans8_vector b) {
    return RANS_BOTH(vmulq_u32(a.a, b.a), vmulq_u32(a.b, b.b));
}
INLINE rans8_vector rans8_srli(rans8_vector x, const int bits) {
    return RANS_BOTH(x.a >> bits, x.b >> bits);
}
INLINE rans8_vector rans8_slli(rans8_vector x, const int bits) {
    return RANS_BOTH(x.a << bits, x.b << bits);
}
INLINE uint32x4_t rans_high_4(uint32x4_t a, uint32x4_t b) {
    const uint64x2_t low = vmull_u32(vget_low_u32(a), vget_low_u32(b)), high = vmull_high_u32(a, b);
    return vuzp2q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high));
}
INLINE rans8_vector rans8_high_product(rans8_vector a, rans8_vector b) {
    return RANS_BOTH(rans_high_4(a.a, b.a), rans_high_4(a.b, b.b));
}
INLINE int rans8_refill(rans8_vector *x, const uint8_t *next) {
    const rans8_mask low = RANS_BOTH(vcltq_u32(x->a, vdupq_n_u32(1u << 16)), vcltq_u32(x->b, vdupq_n_u32(1u << 16)));
    const uint32_t mask = rans_bits(low);
    const uint16x8_t taken = vreinterpretq_u16_u8(vqtbl1q_u8(vld1q_u8(next), vld1q_u8(rans_expand[mask])));
    const uint32x4_t first = vsliq_n_u32(vmovl_u16(vget_low_u16(taken)), x->a, 16);
    *x = rans8_choose(low, RANS_BOTH(first, vsliq_n_u32(vmovl_high_u16(taken), x->b, 16)), *x);
    return rans_count[mask];
}
INLINE int rans8_spill(rans8_vector *x, rans8_vector freq, uint8_t *end) {
    const rans8_mask full = rans8_not_below(rans8_srli(*x, 20), freq);
    const uint32_t mask = rans_bits(full);
    const uint16x8_t words = vcombine_u16(vmovn_u32(x->a), vmovn_u32(x->b));
    vst1q_u8(end - 16, vqtbl1q_u8(vreinterpretq_u8_u16(words), vld1q_u8(rans_compress[mask])));
    *x = rans8_choose(full, rans8_srli(*x, 16), *x);
    return rans_count[mask];
}
/* q + 1 where rest >= freq */
INLINE rans8_vector rans8_correct(rans8_vector q, rans8_vector rest, rans8_vector freq) {
    return rans8_sub(q, rans8_not_below(rest, freq));
}
/* One vector's symbols, the low bytes of v. */
INLINE void rans8_store_bytes(uint8_t *p, rans8_vector v) {
    vst1_u8(p, rans_lanes(v));
}
