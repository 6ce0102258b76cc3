/* flash.c - the STM32F4's flash controller (RM0090, section 3): sector erase, byte and word
 * programming. All waits are bounded, so a machine without the controller answers "no" instead of
 * hanging. */
#include <string.h>

#include "board_config.h"
#include "port.h"
#include "registers.h"

#define SR_BUSY    (1u << 16)
#define SR_ERRORS  0xF2u
#define CR_PROGRAM (1u << 0)
#define CR_ERASE   (1u << 1)
#define CR_BY_WORD (2u << 8)
#define CR_START   (1u << 16)
#define CR_LOCK    (1u << 31)

#define ERASE_LIMIT_MS   5000u /* a 128 KB sector takes up to 2 s at 3.3 V */
#define PROGRAM_TURNS    100000u
#define SECTOR_BIG_BYTES 0x20000u

static bool unlock(void) {
    if (FLASH_CR & CR_LOCK) {
        FLASH_KEYR = 0x45670123u;
        FLASH_KEYR = 0xCDEF89ABu;
    }
    return !(FLASH_CR & CR_LOCK);
}

static void lock(void) {
    FLASH_CR = CR_LOCK;
    FLASH_ACR &= ~0x600u; /* caches off, emptied, on again: they may hold what was there before */
    FLASH_ACR |= 0x1800u;
    FLASH_ACR &= ~0x1800u;
    FLASH_ACR |= 0x600u;
}

/* Sector of an address: four of 16 KB, one of 64 KB, then 128 KB each; sets the sector's first
 * address. */
static uint32_t sector_of(uint32_t address, uint32_t *base, uint32_t *bytes) {
    uint32_t offset = address - BOARD_FLASH_BASE;
    uint32_t sector = offset < 0x10000u   ? offset / 0x4000u
                      : offset < 0x20000u ? 4
                                          : 4 + offset / SECTOR_BIG_BYTES;
    *bytes = sector < 4 ? 0x4000u : sector == 4 ? 0x10000u : SECTOR_BIG_BYTES;
    *base = BOARD_FLASH_BASE + offset / *bytes * *bytes;
    return sector;
}

static bool in_flash(uint32_t address, uint32_t bytes) {
    return address >= BOARD_FLASH_BASE && bytes <= BOARD_FLASH_BYTES &&
           address - BOARD_FLASH_BASE <= BOARD_FLASH_BYTES - bytes;
}

static bool erase_sector(uint32_t sector) {
    FLASH_SR = SR_ERRORS;
    FLASH_CR = CR_ERASE | CR_BY_WORD | sector << 3;
    FLASH_CR |= CR_START;
    uint32_t start = port_millis();
    while (FLASH_SR & SR_BUSY)
        if (port_millis() - start > ERASE_LIMIT_MS) return false;
    return !(FLASH_SR & SR_ERRORS);
}

bool port_flash_erase(uint32_t address, uint32_t bytes) {
    if (!in_flash(address, bytes) || !unlock()) return false;
    bool done = true;
    for (uint32_t next = address, base, size; done && next - address < bytes; next = base + size)
        done = erase_sector(sector_of(next, &base, &size));
    lock();
    const uint32_t *word = (const uint32_t *)(uintptr_t)address;
    for (uint32_t i = 0; done && i < bytes / 4; i++) done = word[i] == 0xFFFFFFFFu;
    return done;
}

static bool program_settled(void) {
    for (uint32_t turn = 0; FLASH_SR & SR_BUSY; turn++)
        if (turn == PROGRAM_TURNS) return false;
    return !(FLASH_SR & SR_ERRORS);
}

bool port_flash_program(uint32_t address, const void *data, uint32_t bytes) {
    if (!in_flash(address, bytes) || !unlock()) return false;
    const uint8_t *next = data;
    bool done = true;
    FLASH_SR = SR_ERRORS;
    for (uint32_t at = address, left = bytes; done && left;) {
        if (at % 4 == 0 && left >= 4) {
            uint32_t word;
            memcpy(&word, next, 4);
            FLASH_CR = CR_PROGRAM | CR_BY_WORD;
            *(volatile uint32_t *)(uintptr_t)at = word;
            at += 4, next += 4, left -= 4;
        } else {
            FLASH_CR = CR_PROGRAM;
            *(volatile uint8_t *)(uintptr_t)at = *next;
            at++, next++, left--;
        }
        __asm volatile("dsb");
        done = program_settled();
    }
    lock();
    return done && !memcmp(port_map(address), data, bytes);
}

/* Locked after every reset, and unlocked by two keys, where there is a controller. */
bool port_flash_works(void) {
    if (!(FLASH_CR & CR_LOCK) || !unlock()) return false;
    lock();
    return true;
}
