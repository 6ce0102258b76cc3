/* power_cut_chip.c - models of two flash controllers under their own drivers
 * (ports/FAMILY/flash.c): STM32F4 (RM0090, section 3) and nRF51 (nRF51 Series Reference Manual,
 * section 6). The driver's stores to flash go to plain memory; at its next access to a register
 * they are taken as the chip takes them: refused when they are not allowed, else bits only become
 * 0. */
#define _GNU_SOURCE
#include "power_cut_chip.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "board_config.h"
#include "port.h"
#include "power_cut.h"

static uint8_t *seen; /* what the driver sees and stores to */
static uint8_t *chip; /* what the cells hold */
static uint32_t regs[6], last[6];

static void erase(uint32_t address, uint32_t bytes) {
    for (uint32_t piece = 0; piece < 8; piece++) {
        spend();
        memset(chip + (address - BOARD_FLASH_BASE) + piece * (bytes / 8), 0xFF, bytes / 8);
    }
    memcpy(seen, chip, BOARD_FLASH_BYTES);
}

/* Programs what the driver stored since the last time; false when the chip refuses it. */
static bool take_stores(bool allowed, uint32_t width) {
    if (!memcmp(seen, chip, BOARD_FLASH_BYTES)) return true;
    uint32_t first = 0;
    while (seen[first] == chip[first]) first++;
    uint32_t at = first & ~(width - 1);
    bool once = !memcmp(seen + at + width, chip + at + width, BOARD_FLASH_BYTES - at - width);
    if (allowed && once) {
        spend();
        for (uint32_t i = 0; i < width; i++) chip[at + i] &= seen[at + i];
    }
    memcpy(seen, chip, BOARD_FLASH_BYTES);
    return allowed && once;
}

#ifdef MODEL_STM32F4
enum { ACR, KEYR, OPTKEYR, SR, CR };
#define FIRST_REGISTER 0x40023C00u
#define LOCK           0x80000000u

static int keys;

static void reset_controller(void) {
    regs[CR] = LOCK;
    keys = 0;
}

static void act(void) {
    uint32_t cr = last[CR], wanted = regs[CR];
    static const uint32_t key[] = {0x45670123u, 0xCDEF89ABu};
    if (regs[SR] != last[SR]) regs[SR] = last[SR] & ~regs[SR]; /* ones clear */
    if (regs[KEYR]) {
        keys = keys < 2 && regs[KEYR] == key[keys] ? keys + 1 : 3;
        if (keys == 2) cr = wanted = 0;
        regs[KEYR] = 0;
    }
    if (wanted != cr && !(cr & LOCK)) {
        cr = wanted & LOCK ? LOCK : wanted;
        if (cr & LOCK) keys = 0;
        if (cr & 1u << 16 && cr & 2u) {
            uint32_t sector = cr >> 3 & 15u;
            if (sector > 3) abort(); /* this flash has four sectors of 16 KB */
            erase(BOARD_FLASH_BASE + 0x4000u * sector, 0x4000u);
        }
        cr &= ~(1u << 16);
    }
    regs[CR] = cr;
    bool by_word = (cr & 0x300u) == 0x200u;
    if (!take_stores(!(cr & LOCK) && cr & 1u, by_word ? 4 : 1)) regs[SR] |= 0x80u;
}
#else
enum { READY, CONFIG, ERASEPAGE, ELSEWHERE };

static void reset_controller(void) {
    regs[CONFIG] = 0;
}

static void act(void) {
    regs[READY] = 1;
    if (!take_stores(last[CONFIG] == 1, 4)) abort(); /* a hard fault */
    if (regs[ERASEPAGE]) {
        if (last[CONFIG] == 2) erase(regs[ERASEPAGE], 1024);
        regs[ERASEPAGE] = 0;
    }
}
#endif

volatile uint32_t *chip_register(uint32_t address) {
    act();
    memcpy(seen, chip, BOARD_FLASH_BYTES);
    memcpy(last, regs, sizeof last);
#ifdef MODEL_STM32F4
    return &regs[(address - FIRST_REGISTER) / 4];
#else
    if (address == 0x4001E400u) return &regs[READY];
    if (address == 0x4001E504u) return &regs[CONFIG];
    if (address == 0x4001E508u) return &regs[ERASEPAGE];
    return (volatile uint32_t *)(uintptr_t)address; /* a word of flash */
#endif
}

static uint8_t *map(uintptr_t address) {
    int how = MAP_PRIVATE | MAP_ANONYMOUS | (address ? MAP_FIXED_NOREPLACE : 0);
    void *at = mmap((void *)address, BOARD_FLASH_BYTES, PROT_READ | PROT_WRITE, how, -1, 0);
    if (at == MAP_FAILED) exit(77); /* the address is taken: the test cannot run here */
    return at;
}

void flash_power_up(void) {
    memset(regs, 0, sizeof regs);
    reset_controller();
    memcpy(seen, chip, BOARD_FLASH_BYTES);
    memcpy(last, regs, sizeof last);
}

void flash_fill(uint8_t value) {
    if (!seen) {
        seen = map(BOARD_FLASH_BASE);
        chip = map(0);
    }
    memset(chip, value, BOARD_FLASH_BYTES);
}

const uint8_t *port_map(uint32_t address) {
    return (const uint8_t *)(uintptr_t)address;
}
uint32_t port_millis(void) {
    return 0;
}
