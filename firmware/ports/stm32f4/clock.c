/* clock.c - core clock, the 1 kHz tick and the time derived from it. */
#include "board_config.h"
#include "port.h"
#include "registers.h"
#include "stm32f4.h"

#define WAIT_TURNS 200000u
#define HSI_HZ     16000000u

uint32_t cpu_hz = HSI_HZ, apb1_hz = HSI_HZ, apb2_hz = HSI_HZ;
static volatile uint32_t ticks_ms;

static bool wait_for(uint32_t bits) {
    for (uint32_t turn = 0; turn < WAIT_TURNS; turn++)
        if (RCC_CR & bits) return true;
    return false;
}

static void use_full_speed(void) {
    cpu_hz = BOARD_CPU_HZ;
    apb1_hz = BOARD_CPU_HZ / 4;
    apb2_hz = BOARD_CPU_HZ / 2;
}

/* PLL from the crystal, or from the internal 16 MHz where the crystal does not start: VCO input 1
 * MHz, output twice the core clock. An emulator without a clock controller reads 0 from RCC_CR (a
 * chip never does) and runs at full speed. */
void clock_start(void) {
    if (!RCC_CR) {
        use_full_speed();
        return;
    }
    RCC_CR |= RCC_HSEON;
    bool crystal = wait_for(RCC_HSERDY);
    uint32_t source_mhz = (crystal ? BOARD_CRYSTAL_HZ : HSI_HZ) / 1000000u;
    uint32_t vco_mhz = 2 * (BOARD_CPU_HZ / 1000000u);
    RCC_PLLCFGR = source_mhz | vco_mhz << 6 | (vco_mhz / 48) << 24 | (crystal ? RCC_PLLHSE : 0);
    FLASH_ACR = 0x700u | 5u; /* caches and prefetch on, 5 wait states (2.7-3.6 V, up to 168 MHz) */
    RCC_CR |= RCC_PLLON;
    if (!wait_for(RCC_PLLRDY)) return;
    RCC_CFGR = 5u << 10 | 4u << 13 | 2u; /* APB1 / 4, APB2 / 2, system clock from the PLL */
    for (uint32_t turn = 0; (RCC_CFGR & 0xCu) != 8u; turn++)
        if (turn == WAIT_TURNS) return;
    use_full_speed();
}

void tick_start(void) {
    SYST_RVR = cpu_hz / 1000 - 1;
    SYST_CVR = 0;
    SYST_CSR = 7;
}

void tick_isr(void) {
    ticks_ms++;
}

uint32_t port_millis(void) {
    return ticks_ms;
}

uint32_t port_micros(void) {
    uint32_t ms, left;
    do {
        ms = ticks_ms;
        left = SYST_CVR;
    } while (ms != ticks_ms);
    return ms * 1000 + (SYST_RVR - left) / (cpu_hz / 1000000u);
}
