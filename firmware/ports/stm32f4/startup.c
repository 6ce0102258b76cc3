/* startup.c - vector table, reset handler and faults of the STM32F4 family. A fault that nobody
 * expects is noted in RAM and the board starts anew; the probe for memory expects one. */
#include <string.h>

#include "port.h"
#include "registers.h"
#include "stm32f4.h"

#define IRQ_COUNT   82
#define FAULT_MAGIC 0x7E51FA17u

extern uint32_t _stack_bottom, _stack_top, _data_start, _data_end, _data_load, _bss_start, _bss_end;

static struct { uint32_t magic, pc, cfsr; } fault_note __attribute__((section(".noinit")));

static char fault_text[40];
static volatile bool probing, probe_failed;

/* ---- stack: painted at start, from the bottom of RAM up ---- */

#define PAINT 0x57ACC0DEu

static void paint_stack(void) {
    uint32_t *here = (uint32_t *)__builtin_frame_address(0);
    for (uint32_t *word = &_stack_bottom; word < here - 16; word++) *word = PAINT;
}

uint32_t port_stack_free(void) {
    const uint32_t *word = &_stack_bottom;
    while (word < &_stack_top && *word == PAINT) word++;
    return (uint32_t)((const uint8_t *)word - (const uint8_t *)&_stack_bottom);
}

/* ---- start ---- */

_Noreturn void reset_handler(void);

static char *put_hex(char *out, uint32_t value) {
    for (int shift = 28; shift >= 0; shift -= 4) *out++ = "0123456789abcdef"[(value >> shift) & 15];
    return out;
}

static void read_fault_note(void) {
    if (fault_note.magic != FAULT_MAGIC) return;
    memcpy(fault_text, "fault at 0x", 11);
    char *end = put_hex(fault_text + 11, fault_note.pc);
    memcpy(end, " cfsr 0x", 8);
    *put_hex(end + 8, fault_note.cfsr) = '\0';
    fault_note.magic = 0;
}

_Noreturn void reset_handler(void) {
    SCB_CPACR |= 0xFu << 20; /* the FPU, before any code that may use it */
    __asm volatile("dsb\nisb");
    memcpy(&_data_start, &_data_load, (size_t)((uint8_t *)&_data_end - (uint8_t *)&_data_start));
    memset(&_bss_start, 0, (size_t)((uint8_t *)&_bss_end - (uint8_t *)&_bss_start));
    SCB_SHCSR |= 7u << 16; /* memory, bus and usage faults by their own vectors */
    read_fault_note();
    paint_stack();
    clock_start();
    console_start();
    tick_start();
    __asm volatile("cpsie i");
    firmware_main();
}

/* ---- faults ---- */

/* `frame` is what the core pushed: r0-r3, r12, lr, pc, psr. */
__attribute__((used)) static void fault(uint32_t *frame) {
    if (probing) {
        probe_failed = true;
        SCB_CFSR = SCB_CFSR;
        frame[6] += 2; /* past the probe's 16-bit load */
        return;
    }
    fault_note.magic = FAULT_MAGIC;
    fault_note.pc = frame[6];
    fault_note.cfsr = SCB_CFSR;
    port_reset();
}

__attribute__((naked)) static void fault_handler(void) {
    __asm volatile("mrs r0, msp\n"
                   "b fault\n");
}

static bool word_answers(uint32_t address) {
    probe_failed = false;
    probing = true;
    __asm volatile("dsb\n"
                   "mov r3, %0\n"
                   ".inst.n 0x681B\n" /* ldr r3, [r3] in its 16-bit form */
                   "dsb\n"
                   :
                   : "r"(address)
                   : "r3", "memory");
    probing = false;
    return !probe_failed;
}

bool port_ram_present(uint32_t address, uint32_t bytes) {
    return word_answers(address & ~3u) && word_answers((address + bytes - 1) & ~3u);
}

const char *port_fault_text(void) {
    return fault_text[0] ? fault_text : NULL;
}

_Noreturn void port_reset(void) {
    console_drain();
    __asm volatile("dsb");
    SCB_AIRCR = 0x05FA0004u;
    for (;;) __asm volatile("dsb");
}

/* ---- vectors: 16 of the core, then the chip's interrupts (RM0090, table 61) ---- */

static const void *const vectors[16 + IRQ_COUNT] __attribute__((section(".vectors"), used)) = {
    [0] = &_stack_top,
    [1] = (const void *)reset_handler,
    [2 ... 14] = (const void *)fault_handler,
    [15] = (const void *)tick_isr,
    [16 ... 16 + 36] = (const void *)fault_handler,
    [16 + 37] = (const void *)console_isr, /* USART1 */
    [16 + 38] = (const void *)console_isr, /* USART2 */
    [16 + 39] = (const void *)console_isr, /* USART3 */
    [16 + 40 ... 16 + 51] = (const void *)fault_handler,
    [16 + 52] = (const void *)console_isr, /* UART4 */
    [16 + 53] = (const void *)console_isr, /* UART5 */
    [16 + 54 ... 16 + 70] = (const void *)fault_handler,
    [16 + 71] = (const void *)console_isr, /* USART6 */
    [16 + 72 ... 16 + 81] = (const void *)fault_handler,
};
