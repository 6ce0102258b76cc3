/* tick.c - time: SysTick at 1 kHz, and the defaults of families without a watchdog or a flash
 * controller. */
#include "cortexm.h"
#include "port.h"

static volatile uint32_t ticks_ms;
static uint32_t cycles_per_us;

void tick_count(void) {
    ticks_ms++;
}

uint32_t port_millis(void) {
    return ticks_ms;
}

__attribute__((weak)) void chip_tick_start(uint32_t core_hz) {
    cycles_per_us = core_hz / 1000000u;
    SYST_RVR = core_hz / 1000 - 1;
    SYST_CVR = 0;
    SYST_CSR = 7;
}

__attribute__((weak)) uint32_t port_micros(void) {
    uint32_t ms, left;
    do {
        ms = ticks_ms;
        left = SYST_CVR;
    } while (ms != ticks_ms);
    return ms * 1000 + (SYST_RVR - left) / cycles_per_us;
}

/* ---- no watchdog ---- */

__attribute__((weak)) void chip_watchdog_start(void) {}
__attribute__((weak)) void chip_watchdog_feed(void) {}
__attribute__((weak)) bool chip_watchdog_bit(void) {
    return false;
}

void port_watchdog_feed(void) {
    chip_watchdog_feed();
}

/* ---- no flash controller ---- */

const uint8_t *port_map(uint32_t address) {
    return (const uint8_t *)(uintptr_t)address;
}

const char *port_flash_name(void) {
    return "flash";
}

__attribute__((weak)) bool port_flash_works(void) {
    return false;
}

__attribute__((weak)) bool port_flash_erase(uint32_t address, uint32_t bytes) {
    (void)address;
    (void)bytes;
    return false;
}

__attribute__((weak)) bool port_flash_program(uint32_t address, const void *data, uint32_t bytes) {
    (void)address;
    (void)data;
    (void)bytes;
    return false;
}
