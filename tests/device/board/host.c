/* host.c - parity.c as a program of the host. */
#include <stdio.h>

void board_print(const char *text);

void board_print(const char *text) {
    fputs(text, stdout);
}
