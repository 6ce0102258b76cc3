/* guest.h - a program that runs on a bare emulated Cortex-M (startup.c) or as a host process: text
 * out, and the marks between which count.c or SysTick count instructions. */
#ifndef GUEST_H
#define GUEST_H

#include <stdint.h>

int main(void); /* 0: success */

void say(const char *text);
void say_number(const char *before, int64_t value, const char *after);

#if defined(__arm__)
#if defined(COUNT_WITH_SYSTICK)
/* Under `-icount shift=0` an instruction takes a nanosecond of the time that SysTick measures. The
 * program prints the ticks itself. */
void systick_begin(void);
void systick_end(void);
#define MARK_BEGIN() systick_begin()
#define MARK_END()   systick_end()
#else
#define MARK_BEGIN() __asm__ volatile("mov r9, r9" ::: "memory")
#define MARK_END()   __asm__ volatile("mov r10, r10" ::: "memory")
#endif
#else
#define MARK_BEGIN() ((void)0)
#define MARK_END()   ((void)0)
#endif

#endif
