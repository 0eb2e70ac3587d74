/* board.h: what main.c needs of the machine: board_an505.c is a Cortex-M33 in QEMU, board_linux.c any Linux. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>

void board_say(const char *text);
/* The most that stack and heap have held so far; 0 where nobody counts. */
size_t board_stack_bytes(void);
size_t board_heap_bytes(void);

#endif
