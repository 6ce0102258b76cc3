/* flash.c - the nRF51's flash controller NVMC: pages of 1 KB are erased, words are programmed, each
 * of which may be done twice. The core stands still meanwhile. */
#include <string.h>

#include "board_config.h"
#include "cortexm.h"
#include "port.h"

#define NVMC_READY     REG(0x4001E400u)
#define NVMC_CONFIG    REG(0x4001E504u)
#define NVMC_ERASEPAGE REG(0x4001E508u)
#define READ_ONLY      0u
#define WRITE          1u
#define ERASE          2u

#define PAGE_BYTES 1024u
#define WAIT_TURNS 1000000u

/* False when the controller is not ready in time, or is not there. */
static bool enter(uint32_t mode) {
    NVMC_CONFIG = mode;
    for (uint32_t turn = 0; turn < WAIT_TURNS; turn++)
        if (NVMC_READY & 1u) return NVMC_CONFIG == mode;
    return false;
}

static bool in_flash(uint32_t address, uint32_t bytes) {
    uint32_t offset = address - BOARD_FLASH_BASE;
    return offset <= BOARD_FLASH_BYTES && bytes <= BOARD_FLASH_BYTES - offset;
}

bool port_flash_works(void) {
    bool there = enter(ERASE);
    return enter(READ_ONLY) && there;
}

bool port_flash_erase(uint32_t address, uint32_t bytes) {
    bool done = in_flash(address, bytes) && enter(ERASE);
    for (uint32_t page = address & ~(PAGE_BYTES - 1); done && page - address < bytes;
         page += PAGE_BYTES) {
        NVMC_ERASEPAGE = page;
        done = enter(ERASE);
    }
    enter(READ_ONLY);
    const uint32_t *word = (const uint32_t *)(uintptr_t)address;
    for (uint32_t i = 0; done && i < bytes / 4; i++) done = word[i] == 0xFFFFFFFFu;
    return done;
}

/* Words that the data covers in part are filled up with ones, which change nothing. */
bool port_flash_program(uint32_t address, const void *data, uint32_t bytes) {
    const uint8_t *next = data;
    bool done = in_flash(address, bytes) && enter(WRITE);
    for (uint32_t at = address, end = address + bytes; done && at < end;) {
        uint32_t word = 0xFFFFFFFFu, skip = at % 4, count = 4 - skip;
        if (count > end - at) count = end - at;
        memcpy((uint8_t *)&word + skip, next, count);
        REG(at - skip) = word;
        done = enter(WRITE);
        at += count;
        next += count;
    }
    enter(READ_ONLY);
    return done && !memcmp(port_map(address), data, bytes);
}
