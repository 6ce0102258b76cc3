/* cortexm.h - what the Cortex-M families share, and what each of them adds in its chip.c: clock and
 * UART; a flash controller where there is one. */
#ifndef CORTEXM_H
#define CORTEXM_H

#include <stdbool.h>
#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(address))

#define SYST_CSR     REG(0xE000E010u)
#define SYST_RVR     REG(0xE000E014u)
#define SYST_CVR     REG(0xE000E018u)
#define NVIC_ISER(n) REG(0xE000E100u + 4u * (n))
#define SCB_AIRCR    REG(0xE000ED0Cu)
#define SCB_SHCSR    REG(0xE000ED24u)
#define SCB_CFSR     REG(0xE000ED28u)
#define SCB_CPACR    REG(0xE000ED88u)

/* ---- every family has these ---- */

/* Brings the core to the manifest's speed where it can; returns its clock in Hz. */
uint32_t chip_clock_start(void);

/* The manifest's UART: pins, baud rate, both directions, and the receive interrupt by irq_enable.
 */
void chip_uart_start(void);

/* Takes the next received byte and clears what asked for the interrupt; false when none waits. */
bool chip_uart_take(uint8_t *byte);

/* Receive interrupt off (`hold`) and on. Bytes then wait in the UART. */
void chip_uart_hold(bool hold);

/* Sends a byte as soon as there is room. */
void chip_uart_put(uint8_t byte);

/* Waits until the last byte has left, for a bounded time. */
void chip_uart_drain(void);

/* ---- some families have these; the shared part has a weak one ---- */

/* Any interrupt of the chip. Shared: the UART's. */
void chip_interrupt(void);

/* Bytes that the UART lost. Shared: 0, for a UART that does not tell. */
uint32_t chip_uart_overruns(void);

/* The 1 kHz tick, by tick_count, and with it port_micros. Shared: SysTick. */
void chip_tick_start(uint32_t core_hz);

/* Starts the watchdog: it resets the board unless chip_watchdog_feed is called within WATCHDOG_S.
 * chip_watchdog_bit: whether it was what reset the board. Shared: no watchdog. */
void chip_watchdog_start(void);
void chip_watchdog_feed(void);
bool chip_watchdog_bit(void);

/* ---- of the shared part ---- */

#define WATCHDOG_S 30u

/* Moves received bytes into the ring; to be called from chip_interrupt. */
void console_isr(void);

/* Counts a millisecond. */
void tick_count(void);

static inline void irq_enable(uint32_t irq) {
    NVIC_ISER(irq / 32) = 1u << irq % 32;
}

#endif
