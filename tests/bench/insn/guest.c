/* guest.c - start-up, output and exit of a guest.h program: semihosting on a bare Cortex-M of any
 * kind, standard output in a host process. */
#include "guest.h"

void say_number(const char *before, int64_t value, const char *after) {
    char digits[24], *p = digits + sizeof digits;
    uint64_t size = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    *--p = 0;
    do *--p = (char)('0' + size % 10);
    while (size /= 10);
    if (value < 0) *--p = '-';
    say(before);
    say(p);
    say(after);
}

#if !defined(__arm__)

#include <stdio.h>

void say(const char *text) {
    fputs(text, stdout);
}

#else

enum { SEMIHOSTING_WRITE0 = 4, SEMIHOSTING_EXIT = 0x18 };
enum { EXIT_GOOD = 0x20026, EXIT_BAD = 0x20023 };

extern uint32_t image_stack, image_data, image_data_end, image_data_load, image_bss, image_bss_end;

static void semihosting(int operation, const void *argument) {
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}

void say(const char *text) {
    semihosting(SEMIHOSTING_WRITE0, text);
}

static void leave(int reason) {
    semihosting(SEMIHOSTING_EXIT, (const void *)reason);
    for (;;) continue;
}

static void reset(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    volatile uint32_t *cpacr = (volatile uint32_t *)0xE000ED88; /* floating point and MVE on */
    *cpacr |= 0xFu << 20;
    __asm__ volatile("dsb\n isb");
#endif
    uint32_t *from = &image_data_load;
    for (uint32_t *to = &image_data; to < &image_data_end;) *to++ = *from++;
    for (uint32_t *to = &image_bss; to < &image_bss_end;) *to++ = 0;
    leave(main() == 0 ? EXIT_GOOD : EXIT_BAD);
}

static void fault(void) {
    say("fault\n");
    leave(EXIT_BAD);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &image_stack, reset, fault, fault, fault, fault, fault};

#if defined(COUNT_WITH_SYSTICK)

/* Control, reload and current value of SysTick, which falls with the processor clock. */
static volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010;
static const uint32_t systick_top = 0xFFFFFF;

void systick_begin(void) {
    systick[1] = systick_top;
    systick[2] = 0;
    systick[0] = 5;
    while (systick[2] == 0) continue; /* until it starts from the top */
    __asm__ volatile("" ::: "memory");
}

void systick_end(void) {
    __asm__ volatile("" ::: "memory");
    uint32_t ticks = systick_top - systick[2];
    say_number("ticks ", (int64_t)ticks, "\n");
}

#endif
#endif
