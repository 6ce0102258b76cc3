/* chip.c - Arm's FPGA boards MPS2 and MPS3: UART and watchdog of the Cortex-M System Design Kit
 * (ARM DDI 0479, sections 4.3 and 4.5) at the manifest's places. No flash: models lie in RAM. */
#include "board_config.h"
#include "cortexm.h"

#define UART(offset) REG(BOARD_CONSOLE_BASE + (offset))
#define UART_DATA    UART(0x00u)
#define UART_STATE   UART(0x04u)
#define UART_CTRL    UART(0x08u)
#define UART_INT     UART(0x0Cu)
#define UART_BAUDDIV UART(0x10u)

#define TX_FULL    1u
#define RX_FULL    2u
#define RX_OVERRUN 8u
#define CTRL_BOTH  3u
#define CTRL_RX    8u
#define INT_RX     2u

static volatile uint32_t overruns;

uint32_t chip_clock_start(void) {
    return BOARD_CPU_HZ;
}

void chip_uart_start(void) {
    UART_BAUDDIV = BOARD_CPU_HZ / BOARD_BAUD;
    UART_CTRL = CTRL_BOTH | CTRL_RX;
    irq_enable(BOARD_CONSOLE_IRQ);
}

bool chip_uart_take(uint8_t *byte) {
    uint32_t state = UART_STATE;
    UART_INT = INT_RX;
    if (state & RX_OVERRUN) {
        overruns++;
        UART_STATE = RX_OVERRUN;
    }
    if (!(state & RX_FULL)) return false;
    *byte = (uint8_t)UART_DATA;
    return true;
}

void chip_uart_hold(bool hold) {
    UART_CTRL = hold ? CTRL_BOTH : CTRL_BOTH | CTRL_RX;
}

/* An emulated UART waits for its reader, for ever if need be: that is no reason to start anew. */
void chip_uart_put(uint8_t byte) {
    while (UART_STATE & TX_FULL) chip_watchdog_feed();
    UART_DATA = byte;
}

void chip_uart_drain(void) {
    while (UART_STATE & TX_FULL) {
    }
}

uint32_t chip_uart_overruns(void) {
    return overruns;
}

/* ---- watchdog: an NMI when the time is over, a reset after the same time again ---- */

#ifdef BOARD_WATCHDOG_BASE
#define WATCHDOG(offset) REG(BOARD_WATCHDOG_BASE + (offset))
#define WATCHDOG_LOAD    WATCHDOG(0x000u)
#define WATCHDOG_CONTROL WATCHDOG(0x008u)
#define WATCHDOG_CLEAR   WATCHDOG(0x00Cu)
#define WATCHDOG_LOCK    WATCHDOG(0xC00u)

void chip_watchdog_start(void) {
    WATCHDOG_LOCK = 0x1ACCE551u;
    WATCHDOG_LOAD = WATCHDOG_S * BOARD_WATCHDOG_HZ;
    WATCHDOG_CONTROL = 3;
}

void chip_watchdog_feed(void) {
    WATCHDOG_CLEAR = 1; /* which loads it again, too */
}
#endif
