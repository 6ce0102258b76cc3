/* chip.c - the STM32F4's clock, UART and watchdog (reference manual RM0090). */
#include "board_config.h"
#include "registers.h"

/* ---- clock ---- */

#define WAIT_TURNS 200000u
#define HSI_HZ     16000000u

static uint32_t apb1_hz = HSI_HZ, apb2_hz = HSI_HZ;

static bool wait_for(uint32_t bits) {
    for (uint32_t turn = 0; turn < WAIT_TURNS; turn++)
        if (RCC_CR & bits) return true;
    return false;
}

static uint32_t full_speed(void) {
    apb1_hz = BOARD_CPU_HZ / 4;
    apb2_hz = BOARD_CPU_HZ / 2;
    return BOARD_CPU_HZ;
}

/* PLL from the crystal, or from the internal 16 MHz where the crystal does not start: VCO input 1
 * MHz, output twice the core clock. An emulator without a clock controller reads 0 from RCC_CR (a
 * chip never does) and runs at full speed. */
uint32_t chip_clock_start(void) {
    if (!RCC_CR) return full_speed();
    RCC_CR |= RCC_HSEON;
    bool crystal = wait_for(RCC_HSERDY);
    uint32_t source_mhz = (crystal ? BOARD_CRYSTAL_HZ : HSI_HZ) / 1000000u;
    uint32_t vco_mhz = 2 * (BOARD_CPU_HZ / 1000000u);
    RCC_PLLCFGR = source_mhz | vco_mhz << 6 | (vco_mhz / 48) << 24 | (crystal ? RCC_PLLHSE : 0);
    FLASH_ACR = 0x700u | 5u; /* caches and prefetch on, 5 wait states (2.7-3.6 V, up to 168 MHz) */
    RCC_CR |= RCC_PLLON;
    if (!wait_for(RCC_PLLRDY)) return HSI_HZ;
    RCC_CFGR = 5u << 10 | 4u << 13 | 2u; /* APB1 / 4, APB2 / 2, system clock from the PLL */
    for (uint32_t turn = 0; (RCC_CFGR & 0xCu) != 8u; turn++)
        if (turn == WAIT_TURNS) return HSI_HZ;
    return full_speed();
}

/* ---- UART ---- */

#define DRAIN_TURNS 200000u

static const struct uart {
    uint32_t base;
    uint8_t irq, apb, enable_bit, alternate;
} uarts[] = {
    {0x40011000u, 37, 2, 4, 7},  {0x40004400u, 38, 1, 17, 7}, {0x40004800u, 39, 1, 18, 7},
    {0x40004C00u, 52, 1, 19, 8}, {0x40005000u, 53, 1, 20, 8}, {0x40011400u, 71, 2, 5, 8},
};

static const struct uart *const uart = &uarts[BOARD_CONSOLE_UART - 1];
static volatile uint32_t overruns;

#define UART(offset) REG(uart->base + (offset))

static void pin_to_uart(uint32_t port, uint32_t pin) {
    RCC_AHB1ENR |= 1u << port;
    GPIO(port, GPIO_MODER) = (GPIO(port, GPIO_MODER) & ~(3u << 2 * pin)) | 2u << 2 * pin;
    GPIO(port, GPIO_PUPDR) = (GPIO(port, GPIO_PUPDR) & ~(3u << 2 * pin)) | 1u << 2 * pin;
    uint32_t half = GPIO_AFR + 4 * (pin / 8), shift = 4 * (pin % 8);
    GPIO(port, half) = (GPIO(port, half) & ~(15u << shift)) | (uint32_t)uart->alternate << shift;
}

void chip_uart_start(void) {
    if (uart->apb == 1)
        RCC_APB1ENR |= 1u << uart->enable_bit;
    else
        RCC_APB2ENR |= 1u << uart->enable_bit;
    pin_to_uart(BOARD_CONSOLE_TX_PORT, BOARD_CONSOLE_TX_PIN);
    pin_to_uart(BOARD_CONSOLE_RX_PORT, BOARD_CONSOLE_RX_PIN);
    uint32_t clock_hz = uart->apb == 1 ? apb1_hz : apb2_hz;
    UART(USART_BRR) = (clock_hz + BOARD_BAUD / 2) / BOARD_BAUD;
    UART(USART_CR1) = 0x200Cu | USART_RXNE; /* on, both directions, receive interrupt */
    irq_enable(uart->irq);
}

bool chip_uart_take(uint8_t *byte) {
    uint32_t status = UART(USART_SR);
    if (status & USART_ORE) overruns++;
    if (!(status & (USART_RXNE | USART_ORE))) return false;
    *byte = (uint8_t)UART(USART_DR); /* reading it clears both flags */
    return status & USART_RXNE;
}

void chip_uart_hold(bool hold) {
    uint32_t rest = UART(USART_CR1) & ~USART_RXNE;
    UART(USART_CR1) = hold ? rest : rest | USART_RXNE;
}

void chip_uart_put(uint8_t byte) {
    while (!(UART(USART_SR) & USART_TXE)) {
    }
    UART(USART_DR) = byte;
}

void chip_uart_drain(void) {
    for (uint32_t turn = 0; !(UART(USART_SR) & USART_TC) && turn < DRAIN_TURNS; turn++) {
    }
}

uint32_t chip_uart_overruns(void) {
    return overruns;
}

/* ---- watchdog: 32 kHz / 256, which real chips miss by up to half ---- */

void chip_watchdog_start(void) {
    IWDG_KR = 0x5555u;
    IWDG_PR = 6;
    IWDG_RLR = WATCHDOG_S * 125u;
    IWDG_KR = 0xCCCCu;
}

void chip_watchdog_feed(void) {
    IWDG_KR = 0xAAAAu;
}

bool chip_watchdog_bit(void) {
    bool bit = RCC_CSR & RCC_IWDGRSTF;
    RCC_CSR |= RCC_RMVF;
    return bit;
}
