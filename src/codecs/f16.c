/* f16.c: one IEEE 754 binary16 value to float32, exactly. */
#include "../efl.h"

#include <math.h>

float efl_f16_to_f32(uint16_t half) {
    const int exponent = (half >> 10) & 0x1F;
    const int mantissa = half & 0x3FF;
    float magnitude;
    if (exponent == 0x1F)
        magnitude = mantissa ? NAN : INFINITY;
    else if (exponent == 0)
        magnitude = (float)mantissa * 0x1p-24f;
    else {
        const union { uint32_t bits; float value; } normal = {
            .bits = (uint32_t)(exponent + 112) << 23 | (uint32_t)mantissa << 13};
        magnitude = normal.value;
    }
    return half & 0x8000 ? -magnitude : magnitude;
}
