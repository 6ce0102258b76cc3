/* chip.c - Arm's FPGA boards MPS2 and MPS3: the UART of the Cortex-M System Design Kit (ARM DDI
 * 0479, section 4.3) at the manifest's place. No flash: models lie in RAM. */
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

void chip_uart_put(uint8_t byte) {
    while (UART_STATE & TX_FULL) {
    }
    UART_DATA = byte;
}

void chip_uart_drain(void) {
    while (UART_STATE & TX_FULL) {
    }
}

uint32_t chip_uart_overruns(void) {
    return overruns;
}
