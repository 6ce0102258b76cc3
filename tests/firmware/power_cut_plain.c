/* power_cut_plain.c - a flash without a controller: written byte by byte, erased in eight pieces,
 * which stand for an erase cut short. */
#include <string.h>

#include "board_config.h"
#include "port.h"
#include "power_cut.h"

static _Alignas(16) uint8_t flash[BOARD_FLASH_BYTES];

void flash_power_up(void) {}
void flash_fill(uint8_t value) {
    memset(flash, value, sizeof flash);
}

const uint8_t *port_map(uint32_t address) {
    return flash + address;
}
bool port_flash_works(void) {
    return true;
}

bool port_flash_erase(uint32_t address, uint32_t bytes) {
    for (uint32_t piece = 0; piece < 8; piece++) {
        spend();
        memset(flash + address + piece * (bytes / 8), 0xFF, bytes / 8);
    }
    return true;
}

bool port_flash_program(uint32_t address, const void *data, uint32_t bytes) {
    for (uint32_t i = 0; i < bytes; i++) {
        spend();
        flash[address + i] &= ((const uint8_t *)data)[i];
    }
    return !memcmp(flash + address, data, bytes);
}
