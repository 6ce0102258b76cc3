/* stm32f4.h - what the files of this port share. */
#ifndef STM32F4_H
#define STM32F4_H

#include <stdint.h>

/* Core clock after clock_start; the second APB runs at half of it, the first at a quarter when
 * above 42 MHz. */
extern uint32_t cpu_hz, apb1_hz, apb2_hz;

void clock_start(void);
void console_start(void);
void console_isr(void);

/* Waits until the last byte has left the UART, for a bounded time. */
void console_drain(void);

void tick_start(void);
void tick_isr(void);

#endif
