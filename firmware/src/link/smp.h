/* smp.h - the Simple Management Protocol: header, dispatch to groups, errors, and what the groups
 * share for CBOR. */
#ifndef SMP_H
#define SMP_H

#include <stdbool.h>
#include <stdint.h>

#include "zcbor_common.h"
#include "zcbor_decode.h"
#include "zcbor_encode.h"

#define SMP_HEADER_BYTES 8u

/* MGMT_ERR of mcumgr: errors of the protocol itself, answered as {"rc": N}. */
enum smp_rc { SMP_OK = 0, SMP_EINVAL = 3, SMP_EMSGSIZE = 7, SMP_ENOTSUP = 8, SMP_TOO_NEW = 13 };

enum smp_group {
    GROUP_OS = 0,
    GROUP_STATS = 2,
    GROUP_FILES = 8,
    GROUP_SHELL = 9,
    GROUP_TERNIO = 64
};

struct smp_request {
    bool write;
    uint8_t version, id;
    uint16_t group;
    const uint8_t *payload;
    uint32_t payload_bytes;
};

/* How a command ended: SMP_OK, an error of the protocol (enum smp_rc), or one of a group. */
#define SMP_IN_GROUP(group, rc) ((((int)(group) + 1) << 16) | (rc))

/* The same of a code of errors.h: those are the errors of group 64. */
int smp_ternio(int code);

/* A handler reads request->payload and puts members into the answer's map, already begun in `out`.
 */
typedef int smp_handler(const struct smp_request *request, zcbor_state_t *out);

smp_handler group_os, group_stats, group_files, group_shell, group_ternio;

/* Why the last upload was refused, in words; empty when it was not. */
const char *group_files_refusal(void);

/* Answers one message; returns the answer's length, 0 for none. */
uint32_t smp_handle(const uint8_t *message, uint32_t bytes, uint8_t *answer, uint32_t capacity);

/* ---- CBOR ---- */

/* One member that a request may have. */
struct field {
    const char *key;
    enum {
        FIELD_U32,
        FIELD_U64,
        FIELD_FLOAT,
        FIELD_BOOL,
        FIELD_TEXT,
        FIELD_BYTES,
        FIELD_WORDS
    } type;
    void *value; /* uint32_t, uint64_t, float, bool, struct zcbor_string, char * (words) */
    bool found;
};

/* Reads the request's map: fields in any order, unknown scalar members passed over. False for
 * anything malformed, for a value of another type and for nested unknown members (a bounded reader
 * needs no stack for them). FIELD_WORDS, a list of texts, becomes one line with spaces between, in
 * the place of the list: what the message held there is gone. */
bool smp_read(const struct smp_request *request, struct field *fields, uint32_t count);

/* Whether a text field holds exactly `word`. */
bool smp_equals(const struct zcbor_string *text, const char *word);

bool put_text(zcbor_state_t *out, const char *key, const char *value);
bool put_u32(zcbor_state_t *out, const char *key, uint32_t value);
bool put_float(zcbor_state_t *out, const char *key, float value);
bool put_bool(zcbor_state_t *out, const char *key, bool value);
bool put_bytes(zcbor_state_t *out, const char *key, const void *value, uint32_t bytes);
bool put_key(zcbor_state_t *out, const char *key);

/* A text member that is written where the answer holds it: begin, write, end. `after` bytes are
 * kept free for what follows; a longer text is cut. */
struct text;
void put_text_begin(zcbor_state_t *out, const char *key, uint32_t after, struct text *text);
bool put_text_end(zcbor_state_t *out, const char *key, const struct text *text);

/* Bytes left in the answer. */
uint32_t room(const zcbor_state_t *out);

/* SMP_OK when the answer was encoded, else SMP_EMSGSIZE. */
int encoded(bool all);

#endif
