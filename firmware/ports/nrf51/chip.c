/* chip.c - the nRF51's clock, UART, tick and watchdog (nRF51 Series Reference Manual 3.0). This
 * Cortex-M0 has no SysTick: TIMER0 counts microseconds, and the tick is its compare interrupt. */
#include "board_config.h"
#include "cortexm.h"
#include "port.h"

#define CORE_HZ 16000000u

#define CLOCK_HFCLKSTART   REG(0x40000000u)
#define CLOCK_LFCLKSTART   REG(0x40000008u)
#define CLOCK_HFCLKSTARTED REG(0x40000100u)
#define POWER_RESETREAS    REG(0x40000400u)
#define RESETREAS_WATCHDOG (1u << 1)

#define UART_STARTRX  REG(0x40002000u)
#define UART_STARTTX  REG(0x40002008u)
#define UART_RXDRDY   REG(0x40002108u)
#define UART_TXDRDY   REG(0x4000211Cu)
#define UART_INTENSET REG(0x40002304u)
#define UART_INTENCLR REG(0x40002308u)
#define UART_ERRORSRC REG(0x40002480u)
#define UART_ENABLE   REG(0x40002500u)
#define UART_PSELTXD  REG(0x4000250Cu)
#define UART_PSELRXD  REG(0x40002514u)
#define UART_RXD      REG(0x40002518u)
#define UART_TXD      REG(0x4000251Cu)
#define UART_BAUDRATE REG(0x40002524u)
#define UART_IRQ      2u
#define INT_RXDRDY    (1u << 2)

#define GPIO_OUTSET     REG(0x50000508u)
#define GPIO_PIN_CNF(n) REG(0x50000700u + 4u * (n))

#define TIMER_START     REG(0x40008000u)
#define TIMER_CAPTURE1  REG(0x40008044u)
#define TIMER_COMPARE0  REG(0x40008140u)
#define TIMER_INTENSET  REG(0x40008304u)
#define TIMER_BITMODE   REG(0x40008508u)
#define TIMER_PRESCALER REG(0x40008510u)
#define TIMER_CC0       REG(0x40008540u)
#define TIMER_CC1       REG(0x40008544u)
#define TIMER_IRQ       8u

#define WDT_START  REG(0x40010000u)
#define WDT_CRV    REG(0x40010504u)
#define WDT_CONFIG REG(0x4001050Cu)
#define WDT_RR0    REG(0x40010600u)

#define WAIT_TURNS 200000u

uint32_t chip_clock_start(void) {
    CLOCK_HFCLKSTART = 1; /* the crystal, which the baud rate needs */
    CLOCK_LFCLKSTART = 1; /* the watchdog's */
    for (uint32_t turn = 0; !CLOCK_HFCLKSTARTED && turn < WAIT_TURNS; turn++) {
    }
    return CORE_HZ;
}

/* ---- UART: six bytes of receive FIFO ---- */

static volatile uint32_t overruns;

void chip_uart_start(void) {
    GPIO_OUTSET = 1u << BOARD_CONSOLE_TX_PIN;
    GPIO_PIN_CNF(BOARD_CONSOLE_TX_PIN) = 3; /* output */
    GPIO_PIN_CNF(BOARD_CONSOLE_RX_PIN) = 0; /* input */
    UART_PSELTXD = BOARD_CONSOLE_TX_PIN;
    UART_PSELRXD = BOARD_CONSOLE_RX_PIN;
    UART_BAUDRATE = (uint32_t)(((uint64_t)BOARD_BAUD << 32) / CORE_HZ + 0x800u) & ~0xFFFu;
    UART_ENABLE = 4;
    UART_STARTTX = 1;
    UART_STARTRX = 1;
    UART_INTENSET = INT_RXDRDY;
    irq_enable(UART_IRQ);
}

bool chip_uart_take(uint8_t *byte) {
    uint32_t errors = UART_ERRORSRC;
    UART_ERRORSRC = errors;
    if (errors & 1u) overruns++;
    if (!UART_RXDRDY) return false;
    UART_RXDRDY = 0;
    *byte = (uint8_t)UART_RXD;
    return true;
}

void chip_uart_hold(bool hold) {
    if (hold)
        UART_INTENCLR = INT_RXDRDY;
    else
        UART_INTENSET = INT_RXDRDY;
}

void chip_uart_put(uint8_t byte) {
    UART_TXD = byte;
    while (!UART_TXDRDY) {
    }
    UART_TXDRDY = 0;
}

void chip_uart_drain(void) {}

uint32_t chip_uart_overruns(void) {
    return overruns;
}

/* ---- tick ---- */

uint32_t port_micros(void) {
    TIMER_CAPTURE1 = 1;
    return TIMER_CC1;
}

void chip_tick_start(uint32_t core_hz) {
    (void)core_hz;
    TIMER_BITMODE = 3;   /* 32 bits */
    TIMER_PRESCALER = 4; /* 16 MHz / 2^4 */
    TIMER_CC0 = 1000;
    TIMER_INTENSET = 1u << 16;
    irq_enable(TIMER_IRQ);
    TIMER_START = 1;
}

/* A late interrupt catches up, so that the next compare always lies ahead. */
static void tick(void) {
    TIMER_COMPARE0 = 0;
    while ((int32_t)(port_micros() - TIMER_CC0) >= 0) {
        TIMER_CC0 += 1000;
        tick_count();
    }
}

void chip_interrupt(void) {
    if (TIMER_COMPARE0) tick();
    console_isr();
}

/* ---- watchdog: 32768 Hz, running also in WFI ---- */

void chip_watchdog_start(void) {
    WDT_CONFIG = 1;
    WDT_CRV = WATCHDOG_S * 32768u - 1;
    WDT_START = 1;
}

void chip_watchdog_feed(void) {
    WDT_RR0 = 0x6E524635u;
}

bool chip_watchdog_bit(void) {
    bool bit = POWER_RESETREAS & RESETREAS_WATCHDOG;
    POWER_RESETREAS = RESETREAS_WATCHDOG;
    return bit;
}
