/* slots.h - the board's slots: places for whole files, two of each kind, of which the newest valid
 * one counts.
 *
 * A slot is a 64-byte header and the content behind it, executed in place. The header is programmed
 * last, so a slot is either complete or not there. Header: magic "TSLT", sequence, length, CRC-32
 * of the content, kind, CRC-32 of these 20 bytes; at 32, written when an upload starts: magic
 * "PEND", length, CRC-32 of these 8 bytes. */
#ifndef SLOTS_H
#define SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#define SLOT_HEADER_BYTES 64u

/* Runs seldom and waits for flash: compiled for size. */
#define COLD __attribute__((cold))

enum slot_kind { SLOT_MODEL = 1, SLOT_ADAPTER = 2 };

struct slot_content {
    const uint8_t *data; /* 16-byte aligned, stays in place until the slot is written again */
    uint32_t bytes;
    uint32_t sequence;
    int slot;         /* index for slots_protect */
    const char *name; /* "A", "B", or "builtin": in the image, where flash cannot be written */
};

/* Finds out where slots can be written. To be called once, before anything else here. */
COLD void slots_init(void);

/* "flash", "file", "ram" or "none". */
const char *slots_storage(void);

/* Largest content that a slot of this kind takes; 0 when none can be written. */
uint32_t slots_capacity(enum slot_kind kind);

/* The valid slot of `kind` with the largest sequence below `below`; false when there is none. The
 * content's CRC is right. */
COLD bool slots_newest(enum slot_kind kind, uint64_t below, struct slot_content *content);

/* The slot in use, which must not be written; -1 for none. */
void slots_protect(enum slot_kind kind, int slot);

/* Erases the idle slot of `kind` for a content of `bytes` bytes. */
COLD bool slots_begin(enum slot_kind kind, uint32_t bytes);

/* Appends to the content begun; false when the storage does not take it. */
bool slots_write(enum slot_kind kind, const uint8_t *data, uint32_t bytes);

/* Bytes of a begun content that are there, and its full length; false when no write is under way. A
 * write that a reset interrupted is found again; its offset may then be smaller than what was sent.
 */
bool slots_pending(enum slot_kind kind, uint32_t *offset, uint32_t *bytes);

/* The content written so far, for checking it before slots_commit. */
const uint8_t *slots_pending_data(enum slot_kind kind);

/* Makes the written content the newest of its kind: the last write. */
COLD bool slots_commit(enum slot_kind kind, struct slot_content *content);

/* Forgets a begun content. */
COLD void slots_abandon(enum slot_kind kind);

/* Invalidates every writable slot of `kind`, oldest first. */
COLD bool slots_discard(enum slot_kind kind);

#endif
