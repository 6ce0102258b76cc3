/* startup.c - vector table, reset handler, stack paint and faults of all Cortex-M families. A fault
 * that nobody expects is noted in RAM and the board starts anew; the probe for memory expects one.
 */
#include <string.h>

#include "cortexm.h"
#include "port.h"

#if __ARM_ARCH == 6
#define IRQ_COUNT         32
#define FAULT_STATUS      0u /* ARMv6-M does not tell */
#define FAULT_STATUS_DONE ((void)0)
#else
#define IRQ_COUNT         112
#define FAULT_STATUS      SCB_CFSR
#define FAULT_STATUS_DONE (SCB_CFSR = SCB_CFSR)
#endif
#define FAULT_MAGIC 0x7E51FA17u

extern uint32_t _stack_bottom, _stack_top, _data_start, _data_end, _data_load, _bss_start, _bss_end;

#define NMI 2u /* exception number: a watchdog's warning */

static struct {
    uint32_t magic, pc, status, exception;
} fault_note __attribute__((section(".noinit")));

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
    if (chip_watchdog_bit()) memcpy(fault_text, "watchdog", 9);
    if (fault_note.magic != FAULT_MAGIC) return;
    bool late = fault_note.exception == NMI;
    size_t length = late ? 14 : 11;
    memcpy(fault_text, late ? "watchdog at 0x" : "fault at 0x", length);
    char *end = put_hex(fault_text + length, fault_note.pc);
    if (!late) {
        memcpy(end, " cfsr 0x", 8);
        put_hex(end + 8, fault_note.status);
    }
    fault_note.magic = 0;
}

_Noreturn void reset_handler(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    SCB_CPACR |= 0xFu << 20; /* FPU and MVE, before any code that may use them */
    __asm volatile("dsb\nisb");
#endif
    memcpy(&_data_start, &_data_load, (size_t)((uint8_t *)&_data_end - (uint8_t *)&_data_start));
    memset(&_bss_start, 0, (size_t)((uint8_t *)&_bss_end - (uint8_t *)&_bss_start));
#if __ARM_ARCH > 6
    SCB_SHCSR |= 7u << 16; /* memory, bus and usage faults by their own vectors */
#endif
    read_fault_note();
    paint_stack();
    uint32_t core_hz = chip_clock_start();
    chip_uart_start();
    chip_tick_start(core_hz); /* at once: an emulator without a tick may sleep through the UART */
    chip_watchdog_start();
    __asm volatile("cpsie i");
    firmware_main();
}

/* ---- faults ---- */

/* `frame` is what the core pushed: r0-r3, r12, lr, pc, psr. */
__attribute__((used)) static void fault(uint32_t *frame) {
    if (probing) {
        probe_failed = true;
        FAULT_STATUS_DONE;
        frame[6] += 2; /* past the probe's 16-bit load */
        return;
    }
    fault_note.magic = FAULT_MAGIC;
    fault_note.pc = frame[6];
    fault_note.status = FAULT_STATUS;
    __asm volatile("mrs %0, ipsr" : "=r"(fault_note.exception));
    port_reset();
}

__attribute__((naked)) static void fault_handler(void) {
    __asm volatile("mrs r0, msp\n"
                   "ldr r1, 1f\n"
                   "bx r1\n"
                   ".align 2\n"
                   "1: .word fault\n");
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

/* Some emulated buses answer where nothing is, so a word must also keep what is written. */
static bool word_keeps(uint32_t address) {
    if (!word_answers(address)) return false;
    uint32_t content = REG(address);
    REG(address) = ~content;
    bool kept = REG(address) == ~content;
    REG(address) = content;
    return kept;
}

bool port_ram_present(uint32_t address, uint32_t bytes) {
    return word_keeps(address & ~3u) && word_keeps((address + bytes - 1) & ~3u);
}

const char *port_fault_text(void) {
    return fault_text[0] ? fault_text : NULL;
}

_Noreturn void port_reset(void) {
    chip_uart_drain();
    __asm volatile("dsb");
    SCB_AIRCR = 0x05FA0004u;
    for (;;) __asm volatile("dsb");
}

/* ---- vectors: 16 of the core, then the chip's, of which few are ever enabled ---- */

static const void *const vectors[16 + IRQ_COUNT] __attribute__((section(".vectors"), used)) = {
    [0] = &_stack_top,
    [1] = (const void *)reset_handler,
    [2 ... 14] = (const void *)fault_handler,
    [15] = (const void *)tick_count, /* SysTick */
    [16 ... 15 + IRQ_COUNT] = (const void *)chip_interrupt,
};
