/* known_loop.c - marked loops of known length, to test the counting itself. */
#include "guest.h"

static void loop(uint32_t turns) {
    __asm__ volatile("" : "+l"(turns)); /* loaded before the mark */
    MARK_BEGIN();
    __asm__ volatile(".syntax unified\n"
                     "1: nop\n"
                     "subs %0, %0, #1\n"
                     "bne 1b"
                     : "+l"(turns)
                     :
                     : "cc");
    MARK_END();
}

int main(void) {
    loop(10);
    loop(1000);
    loop(50000);
    return 0;
}
