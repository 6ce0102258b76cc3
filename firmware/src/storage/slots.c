/* slots.c - see slots.h. Flash goes through the port; RAM slots behave like flash (erase to 0xFF,
 * writes clear bits). */
#include "storage/slots.h"

#include <string.h>

#include "board_config.h"
#include "port.h"
#include "tr.h"

#define KINDS          3 /* index 0 unused */
#define PENDING_OFFSET 32u

struct slot {
    uint32_t kind, base, bytes;
};

struct header {
    uint8_t magic[4];
    uint32_t sequence, length, content_crc, kind, header_crc;
};

struct pending_mark {
    uint8_t magic[4];
    uint32_t length, mark_crc;
};

static const struct slot flash_slots[] = BOARD_FLASH_SLOTS;
static const struct slot ram_slots[] = BOARD_RAM_SLOTS;

static enum { STORAGE_NONE, STORAGE_FLASH, STORAGE_RAM } storage;
static const struct slot *slots; /* the writable ones */
static int slot_count;
static int protected_slot[KINDS];
static struct {
    int slot; /* -1: no write under way */
    uint32_t offset, bytes;
} pending[KINDS];

/* ---- storage ---- */

static bool all_ram_present(void) {
    for (int i = 0; i < BOARD_RAM_SLOT_COUNT; i++)
        if (!port_ram_present(ram_slots[i].base, ram_slots[i].bytes)) return false;
    return BOARD_RAM_SLOT_COUNT > 0;
}

static bool erase(const struct slot *slot) {
    if (storage == STORAGE_FLASH) return port_flash_erase(slot->base, slot->bytes);
    memset((uint8_t *)port_map(slot->base), 0xFF, slot->bytes);
    return true;
}

static bool program(const struct slot *slot, uint32_t offset, const void *data, uint32_t bytes) {
    if (storage == STORAGE_FLASH) return port_flash_program(slot->base + offset, data, bytes);
    uint8_t *to = (uint8_t *)port_map(slot->base + offset);
    for (uint32_t i = 0; i < bytes; i++) to[i] &= ((const uint8_t *)data)[i];
    return !memcmp(to, data, bytes);
}

const char *slots_storage(void) {
    return storage == STORAGE_FLASH ? port_flash_name() : storage == STORAGE_RAM ? "ram" : "none";
}

uint32_t slots_capacity(enum slot_kind kind) {
    uint32_t capacity = 0;
    for (int i = 0; i < slot_count; i++)
        if (slots[i].kind == kind) capacity = slots[i].bytes - SLOT_HEADER_BYTES;
    return capacity;
}

/* ---- reading ---- */

/* Header of a slot when it is valid and the content's CRC agrees. */
static bool read_slot(const struct slot *slot, enum slot_kind kind, struct header *header) {
    if (slot->kind != kind) return false;
    const uint8_t *at = port_map(slot->base);
    memcpy(header, at, sizeof *header);
    if (memcmp(header->magic, "TSLT", 4) || header->kind != kind) return false;
    if (header->header_crc != tr_crc32(0, header, 20)) return false;
    if (header->length > slot->bytes - SLOT_HEADER_BYTES) return false;
    return header->content_crc == tr_crc32(0, at + SLOT_HEADER_BYTES, header->length);
}

/* A or B: the place of a slot among those of its kind. */
static const char *slot_name(const struct slot *table, int index) {
    int place = 0;
    for (int i = 0; i < index; i++) place += table[i].kind == table[index].kind;
    return place ? "B" : "A";
}

static void consider(const struct slot *table, int index, enum slot_kind kind, uint64_t below,
                     struct slot_content *best, bool *found) {
    struct header header;
    if (!read_slot(&table[index], kind, &header)) return;
    if (header.sequence >= below || (*found && header.sequence <= best->sequence)) return;
    *found = true;
    *best = (struct slot_content){
        .data = port_map(table[index].base) + SLOT_HEADER_BYTES,
        .bytes = header.length,
        .sequence = header.sequence,
        .slot = table == slots ? index : -1,
        .name = table == slots ? slot_name(table, index) : "builtin",
    };
}

bool slots_newest(enum slot_kind kind, uint64_t below, struct slot_content *content) {
    bool found = false;
    for (int i = 0; i < slot_count; i++) consider(slots, i, kind, below, content, &found);
    if (storage != STORAGE_FLASH && kind == SLOT_MODEL)
        for (int i = 0; i < BOARD_FLASH_SLOT_COUNT; i++)
            consider(flash_slots, i, kind, below, content, &found);
    return found;
}

void slots_protect(enum slot_kind kind, int slot) {
    protected_slot[kind] = slot;
}

/* ---- a write that a reset interrupted ---- */

static bool read_mark(const struct slot *slot, uint32_t *length) {
    struct pending_mark mark;
    memcpy(&mark, port_map(slot->base + PENDING_OFFSET), sizeof mark);
    *length = mark.length;
    return !memcmp(mark.magic, "PEND", 4) && mark.mark_crc == tr_crc32(0, &mark, 8) &&
           mark.length <= slot->bytes - SLOT_HEADER_BYTES;
}

/* Bytes certainly programmed: up to the last one that is not erased, less a margin for a write cut
 * short. Writing the same bytes again does no harm. */
static uint32_t written_bytes(const struct slot *slot, uint32_t length) {
    const uint8_t *content = port_map(slot->base) + SLOT_HEADER_BYTES;
    while (length && content[length - 1] == 0xFF) length--;
    length &= ~15u;
    return length > 16 ? length - 16 : 0;
}

static void find_pending(void) {
    for (int i = 0; i < slot_count; i++) {
        uint32_t length;
        struct header header;
        memcpy(&header, port_map(slots[i].base), sizeof header);
        bool committed = memcmp(header.magic, "\xFF\xFF\xFF\xFF", 4) != 0;
        if (committed || !read_mark(&slots[i], &length)) continue;
        pending[slots[i].kind].slot = i;
        pending[slots[i].kind].bytes = length;
        pending[slots[i].kind].offset = written_bytes(&slots[i], length);
    }
}

void slots_init(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        protected_slot[kind] = -1;
        pending[kind].slot = -1;
    }
    if (port_flash_works()) {
        storage = STORAGE_FLASH;
        slots = flash_slots;
        slot_count = BOARD_FLASH_SLOT_COUNT;
    } else if (all_ram_present()) {
        storage = STORAGE_RAM;
        slots = ram_slots;
        slot_count = BOARD_RAM_SLOT_COUNT;
    }
    find_pending();
}

/* ---- writing ---- */

/* Of the slots that are not in use: an invalid one, else the one with the lowest sequence. */
static int idle_slot(enum slot_kind kind) {
    int idle = -1;
    uint32_t lowest = UINT32_MAX;
    for (int i = 0; i < slot_count; i++) {
        struct header header;
        if (slots[i].kind != kind || i == protected_slot[kind]) continue;
        if (!read_slot(&slots[i], kind, &header)) return i;
        if (idle < 0 || header.sequence < lowest) {
            idle = i;
            lowest = header.sequence;
        }
    }
    return idle;
}

bool slots_begin(enum slot_kind kind, uint32_t bytes) {
    pending[kind].slot = -1;
    int idle = idle_slot(kind);
    if (idle < 0 || bytes > slots_capacity(kind) || !erase(&slots[idle])) return false;
    struct pending_mark mark = {{'P', 'E', 'N', 'D'}, bytes, 0};
    mark.mark_crc = tr_crc32(0, &mark, 8);
    if (!program(&slots[idle], PENDING_OFFSET, &mark, sizeof mark)) return false;
    pending[kind].slot = idle;
    pending[kind].offset = 0;
    pending[kind].bytes = bytes;
    return true;
}

bool slots_write(enum slot_kind kind, const uint8_t *data, uint32_t bytes) {
    if (pending[kind].slot < 0 || bytes > pending[kind].bytes - pending[kind].offset) return false;
    const struct slot *slot = &slots[pending[kind].slot];
    if (!program(slot, SLOT_HEADER_BYTES + pending[kind].offset, data, bytes)) {
        slots_abandon(kind);
        return false;
    }
    pending[kind].offset += bytes;
    return true;
}

bool slots_pending(enum slot_kind kind, uint32_t *offset, uint32_t *bytes) {
    if (pending[kind].slot < 0) return false;
    *offset = pending[kind].offset;
    *bytes = pending[kind].bytes;
    return true;
}

const uint8_t *slots_pending_data(enum slot_kind kind) {
    return port_map(slots[pending[kind].slot].base) + SLOT_HEADER_BYTES;
}

bool slots_commit(enum slot_kind kind, struct slot_content *content) {
    if (pending[kind].slot < 0 || pending[kind].offset != pending[kind].bytes) return false;
    const struct slot *slot = &slots[pending[kind].slot];
    struct slot_content newest;
    uint32_t sequence =
        slots_newest(kind, (uint64_t)UINT32_MAX + 1, &newest) ? newest.sequence + 1 : 1;
    struct header header = {.magic = {'T', 'S', 'L', 'T'},
                            .sequence = sequence,
                            .length = pending[kind].bytes,
                            .kind = kind};
    header.content_crc = tr_crc32(0, slots_pending_data(kind), header.length);
    header.header_crc = tr_crc32(0, &header, 20);
    *content = (struct slot_content){slots_pending_data(kind), header.length, sequence,
                                     pending[kind].slot, slot_name(slots, pending[kind].slot)};
    pending[kind].slot = -1;
    return program(slot, 0, &header, sizeof header);
}

/* Header and mark become zero: a valid header cannot be programmed over that, and nothing is found
 * there again. */
static bool invalidate(const struct slot *slot) {
    static const uint8_t zeros[SLOT_HEADER_BYTES];
    return program(slot, 0, zeros, sizeof zeros);
}

void slots_abandon(enum slot_kind kind) {
    if (pending[kind].slot >= 0) invalidate(&slots[pending[kind].slot]);
    pending[kind].slot = -1;
}

bool slots_discard(enum slot_kind kind) {
    struct header header;
    slots_abandon(kind);
    for (;;) {
        int oldest = -1;
        uint32_t lowest = UINT32_MAX;
        for (int i = 0; i < slot_count; i++)
            if (read_slot(&slots[i], kind, &header) && header.sequence <= lowest) {
                oldest = i;
                lowest = header.sequence;
            }
        if (oldest < 0) return true;
        if (!invalidate(&slots[oldest])) return false;
    }
}
