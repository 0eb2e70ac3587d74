/* board_an505.c: see board.h. Start, heap and output of QEMU's mps2-an505, a Cortex-M33 (Arm's application note 505).
 *
 * Text goes out by semihosting: the processor stops at a breakpoint, and the debugger, here QEMU, reads it. On a board
 * without a debugger, put a UART in its place. The stack is filled with a pattern before main, so that what it has
 * overwritten can be counted. The processor itself stops a stack that outgrows its 4 kB (MSPLIM).
 */
#include "board.h"

#include <stdint.h>
#include <string.h>

extern uint32_t board_data[], board_data_end[], board_data_in_flash[], board_bss[], board_bss_end[];
extern uint32_t board_stack[], board_stack_end[];
extern char board_heap[], board_heap_end[];

int main(void);
void board_start(void);

enum { PATTERN = 0x5AFE57AC };
enum { WRITE0 = 0x04, EXIT_EXTENDED = 0x20, APPLICATION_EXIT = 0x20026 };

static void ask_debugger(int what, const void *about) {
    register int r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = about;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

void board_say(const char *text) {
    ask_debugger(WRITE0, text);
}

static _Noreturn void finish(uint32_t code) {
    const uint32_t about[2] = {APPLICATION_EXIT, code};
    ask_debugger(EXIT_EXTENDED, about);
    for (;;) {
    }
}

__attribute__((used)) static void say_fault(void) {
    board_say("fault: the stack is full, or an address is wrong\n");
    finish(3);
}

/* There may be no stack left: it begins anew. */
__attribute__((naked)) static void fault(void) {
    __asm__("mov r0, #0\n"
            "msr msplim, r0\n"
            "ldr r0, =board_stack_end\n"
            "mov sp, r0\n"
            "b say_fault\n");
}

size_t board_stack_bytes(void) {
    const uint32_t *lowest = board_stack;
    while (lowest < board_stack_end && *lowest == PATTERN) lowest++;
    return (size_t)((const char *)board_stack_end - (const char *)lowest);
}

static char *heap_next = board_heap;

size_t board_heap_bytes(void) {
    return (size_t)(heap_next - board_heap);
}

/* newlib's malloc asks here. */
void *_sbrk(ptrdiff_t size) {
    char *before = heap_next;
    if (size > board_heap_end - heap_next) return (void *)-1;
    heap_next += size;
    return before;
}

/* All in registers: the stack is being filled. */
static inline __attribute__((always_inline)) void fill_stack(void) {
    uint32_t *end;
    __asm__ volatile("mov %0, sp" : "=r"(end));
    for (volatile uint32_t *word = board_stack; word < end; word++) *word = PATTERN;
}

void board_start(void) {
    __asm__ volatile("msr msplim, %0" : : "r"(board_stack));
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the FPU */
    __asm__ volatile("dsb; isb");
    fill_stack();
    memcpy(board_data, board_data_in_flash, (size_t)((char *)board_data_end - (char *)board_data));
    memset(board_bss, 0, (size_t)((char *)board_bss_end - (char *)board_bss));
    finish((uint32_t)main());
}

typedef void handler(void);

/* The stack's end and the reset handler, then NMI and the faults. No interrupt is used. */
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    handler *handlers[7];
} vectors = {board_stack_end, {board_start, fault, fault, fault, fault, fault, fault}};
