/* power_cut.c - storage/slots.c on a flash that loses power after every possible number of written
 * units. For each cut: the store starts again, must find the old or the new content whole, and must
 * take the new one then. The flash is in a file of its own: power_cut.h. */
#include "power_cut.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include "board_config.h"
#include "port.h"
#include "storage/slots.h"

#define OLD_BYTES 100u
#define NEW_BYTES 203u
#define BLOCK     32u

static uint8_t old_content[OLD_BYTES], new_content[NEW_BYTES];
static long budget; /* units that may still be written */
static jmp_buf power_gone;

void spend(void) {
    if (budget-- <= 0) longjmp(power_gone, 1);
}

bool port_ram_present(uint32_t address, uint32_t bytes) {
    return (void)address, (void)bytes, false;
}
const char *port_flash_name(void) {
    return "flash";
}

/* Starts the store, protects what is in use, and tells which content that is: 1 old, 2 new, 0
 * neither. */
static int restart(void) {
    struct slot_content content;
    flash_power_up();
    slots_init();
    if (!slots_newest(SLOT_MODEL, (uint64_t)UINT32_MAX + 1, &content)) return 0;
    slots_protect(SLOT_MODEL, content.slot);
    if (content.bytes == OLD_BYTES && !memcmp(content.data, old_content, OLD_BYTES)) return 1;
    return content.bytes == NEW_BYTES && !memcmp(content.data, new_content, NEW_BYTES) ? 2 : 0;
}

/* Writes a content to its end, from where an interrupted write of the same length stopped. */
static bool store(const uint8_t *data, uint32_t bytes) {
    struct slot_content content;
    uint32_t offset, length;
    bool resumed = slots_pending(SLOT_MODEL, &offset, &length) && length == bytes;
    if (!resumed && !slots_begin(SLOT_MODEL, bytes)) return false;
    while (slots_pending(SLOT_MODEL, &offset, &length) && offset < bytes)
        if (!slots_write(SLOT_MODEL, data + offset,
                         bytes - offset < BLOCK ? bytes - offset : BLOCK))
            return false;
    if (memcmp(slots_pending_data(SLOT_MODEL), data, bytes)) return false;
    return slots_commit(SLOT_MODEL, &content);
}

/* One update cut after `cut` bytes; false and a line of text when something was lost. *whole:
 * nothing was cut. */
static bool survives(long cut, bool discard_first, bool *whole) {
    flash_fill(0xA5);
    budget = 1L << 30;
    restart();
    if (!store(old_content, OLD_BYTES) || restart() != 1) return printf("cannot store\n"), false;
    if (discard_first && (!store(new_content, NEW_BYTES) || restart() != 2))
        return printf("cannot store twice\n"), false;
    *whole = false;
    budget = cut;
    if (!setjmp(power_gone)) {
        if (discard_first ? !slots_discard(SLOT_MODEL) : !store(new_content, NEW_BYTES))
            return printf("refused\n"), false;
        *whole = true;
    }
    budget = 1L << 30;
    int found = restart();
    if (discard_first) {
        if (found == 1)
            return printf("cut after %ld writes: an older content came back\n", cut), false;
        return !*whole || found == 0;
    }
    if (!found || (*whole && found != 2))
        return printf("cut after %ld writes: content lost\n", cut), false;
    if (found == 1 && (!store(new_content, NEW_BYTES) || restart() != 2))
        return printf("cut after %ld writes: the update cannot be finished\n", cut), false;
    return true;
}

int main(void) {
    for (uint32_t i = 0; i < OLD_BYTES; i++) old_content[i] = (uint8_t)(i * 37 + 11);
    for (uint32_t i = 0; i < NEW_BYTES; i++)
        new_content[i] = i % 50 > 25 ? 0xFF : (uint8_t)(i * 59 + 5);
    for (int discard = 0; discard < 2; discard++) {
        bool whole = false;
        long cut = 0;
        for (; !whole; cut++)
            if (!survives(cut, discard, &whole)) return 1;
        printf("%s survives a cut at each of %ld writes\n", discard ? "discarding" : "updating",
               cut);
    }
    return 0;
}
