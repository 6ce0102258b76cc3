/* console.c - the board's UART: receive ring filled by interrupt, blocking send. When the ring is
 * full the interrupt is switched off and the byte stays in the UART, so an emulated UART holds the
 * sender back and nothing is lost. */
#include "board_config.h"
#include "port.h"
#include "registers.h"
#include "stm32f4.h"

#define DRAIN_TURNS 200000u

static const struct uart {
    uint32_t base;
    uint8_t irq, apb, enable_bit, alternate;
} uarts[] = {
    {0x40011000u, 37, 2, 4, 7},  {0x40004400u, 38, 1, 17, 7}, {0x40004800u, 39, 1, 18, 7},
    {0x40004C00u, 52, 1, 19, 8}, {0x40005000u, 53, 1, 20, 8}, {0x40011400u, 71, 2, 5, 8},
};

static const struct uart *const uart = &uarts[BOARD_CONSOLE_UART - 1];
static uint8_t ring[BOARD_RX_RING_BYTES];
static volatile uint32_t ring_head, ring_tail; /* bytes put and taken, modulo 2^32 */
static volatile uint32_t overruns;

_Static_assert((BOARD_RX_RING_BYTES & (BOARD_RX_RING_BYTES - 1)) == 0,
               "the ring is a power of two");

#define UART(offset) REG(uart->base + (offset))

static void pin_to_uart(uint32_t port, uint32_t pin) {
    RCC_AHB1ENR |= 1u << port;
    GPIO(port, GPIO_MODER) = (GPIO(port, GPIO_MODER) & ~(3u << 2 * pin)) | 2u << 2 * pin;
    GPIO(port, GPIO_PUPDR) = (GPIO(port, GPIO_PUPDR) & ~(3u << 2 * pin)) | 1u << 2 * pin;
    uint32_t half = GPIO_AFR + 4 * (pin / 8), shift = 4 * (pin % 8);
    GPIO(port, half) = (GPIO(port, half) & ~(15u << shift)) | (uint32_t)uart->alternate << shift;
}

void console_start(void) {
    if (uart->apb == 1)
        RCC_APB1ENR |= 1u << uart->enable_bit;
    else
        RCC_APB2ENR |= 1u << uart->enable_bit;
    pin_to_uart(BOARD_CONSOLE_TX_PORT, BOARD_CONSOLE_TX_PIN);
    pin_to_uart(BOARD_CONSOLE_RX_PORT, BOARD_CONSOLE_RX_PIN);
    uint32_t clock_hz = uart->apb == 1 ? apb1_hz : apb2_hz;
    UART(USART_BRR) = (clock_hz + BOARD_BAUD / 2) / BOARD_BAUD;
    UART(USART_CR1) = 0x200Cu | USART_RXNE; /* on, both directions, receive interrupt */
    NVIC_ISER(uart->irq / 32) = 1u << uart->irq % 32;
}

void console_isr(void) {
    for (;;) {
        uint32_t status = UART(USART_SR);
        if (status & USART_ORE) overruns++;
        if (!(status & USART_RXNE)) {
            if (status & USART_ORE) (void)UART(USART_DR);
            return;
        }
        if (ring_head - ring_tail == BOARD_RX_RING_BYTES) {
            UART(USART_CR1) &= ~USART_RXNE;
            return;
        }
        ring[ring_head % BOARD_RX_RING_BYTES] = (uint8_t)UART(USART_DR);
        ring_head++;
    }
}

size_t port_rx(uint8_t *out, size_t capacity) {
    size_t count = 0;
    while (count < capacity && ring_tail != ring_head) {
        out[count++] = ring[ring_tail % BOARD_RX_RING_BYTES];
        ring_tail++;
    }
    if (count && !(UART(USART_CR1) & USART_RXNE)) UART(USART_CR1) |= USART_RXNE;
    return count;
}

void port_tx(const void *data, size_t bytes) {
    const uint8_t *next = data;
    while (bytes--) {
        while (!(UART(USART_SR) & USART_TXE)) {
        }
        UART(USART_DR) = *next++;
    }
}

void console_drain(void) {
    for (uint32_t turn = 0; !(UART(USART_SR) & USART_TC) && turn < DRAIN_TURNS; turn++) {
    }
}

uint32_t port_rx_lost(void) {
    return overruns;
}

void port_idle(void) {
    __asm volatile("cpsid i");
    if (ring_tail == ring_head) __asm volatile("wfi");
    __asm volatile("cpsie i");
}
