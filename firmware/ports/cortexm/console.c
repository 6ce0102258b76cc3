/* console.c - the receive ring, filled by interrupt, and blocking send. When the ring is full the
 * interrupt is switched off and bytes stay in the UART, so an emulated UART holds the sender back
 * and nothing is lost. */
#include "board_config.h"
#include "cortexm.h"
#include "port.h"

_Static_assert((BOARD_RX_RING_BYTES & (BOARD_RX_RING_BYTES - 1)) == 0,
               "the ring is a power of two");

static uint8_t ring[BOARD_RX_RING_BYTES];
static volatile uint32_t ring_head, ring_tail; /* bytes put and taken, modulo 2^32 */
static volatile bool held;

void console_isr(void) {
    uint8_t byte;
    for (;;) {
        if (ring_head - ring_tail == BOARD_RX_RING_BYTES) {
            chip_uart_hold(true);
            held = true;
            return;
        }
        if (!chip_uart_take(&byte)) return;
        ring[ring_head % BOARD_RX_RING_BYTES] = byte;
        ring_head++;
    }
}

__attribute__((weak)) void chip_interrupt(void) {
    console_isr();
}

__attribute__((weak)) uint32_t chip_uart_overruns(void) {
    return 0;
}

/* Not every UART asks again for a byte that came while its interrupt was off: it is fetched here.
 */
static void release(void) {
    __asm volatile("cpsid i");
    held = false;
    chip_uart_hold(false);
    console_isr();
    __asm volatile("cpsie i");
}

size_t port_rx(uint8_t *out, size_t capacity) {
    size_t count = 0;
    while (count < capacity && ring_tail != ring_head) {
        out[count++] = ring[ring_tail % BOARD_RX_RING_BYTES];
        ring_tail++;
    }
    if (count && held) release();
    return count;
}

bool port_rx_holds(uint8_t byte) {
    for (uint32_t at = ring_tail; at != ring_head; at++)
        if (ring[at % BOARD_RX_RING_BYTES] == byte) return true;
    return held;
}

void port_tx(const void *data, size_t bytes) {
    const uint8_t *next = data;
    while (bytes--) chip_uart_put(*next++);
}

uint32_t port_rx_lost(void) {
    return chip_uart_overruns();
}

void port_idle(void) {
    __asm volatile("cpsid i");
    if (ring_tail == ring_head) __asm volatile("wfi");
    __asm volatile("cpsie i");
}
