/* smp.c - see smp.h. */
#include "link/smp.h"

#include <string.h>

#include "errors.h"
#include "text.h"

#define CLOSING_BYTES 1u /* the byte that ends the answer's map */
#define NO_BACKUPS    0  /* which only canonical encoding needs */
#define MAP_MEMBERS   32u
#define TEXT_MAX      256u

/* ---- reading requests ---- */

/* A word's head takes at least the byte that the space before it needs, the list's head the one of
 * the NUL, so the line never reaches what is not read yet. */
static bool read_words(zcbor_state_t *in, char **line) {
    char *to = (char *)(uintptr_t)in->payload; /* in the buffer that the frame was received in */
    uint32_t length = 0;
    if (!zcbor_list_start_decode(in)) return false;
    while (!zcbor_array_at_end(in)) {
        struct zcbor_string word;
        if (!zcbor_tstr_decode(in, &word)) return false;
        if (length) to[length++] = ' ';
        for (size_t i = 0; i < word.len; i++)
            to[length++] = word.value[i] < ' ' ? '?' : (char)word.value[i];
    }
    to[length] = '\0';
    *line = to;
    return zcbor_list_end_decode(in);
}

/* A float of any width, or an integer. */
static bool read_float(zcbor_state_t *in, float *value) {
    double wide;
    int32_t whole;
    if (zcbor_int32_decode(in, &whole)) {
        *value = (float)whole;
        return true;
    }
    if (!zcbor_float_decode(in, &wide)) return false;
    *value = (float)wide;
    return true;
}

static bool read_value(zcbor_state_t *in, struct field *field) {
    field->found = true;
    switch (field->type) {
    case FIELD_U32:
        return zcbor_uint32_decode(in, field->value);
    case FIELD_U64:
        return zcbor_uint64_decode(in, field->value);
    case FIELD_FLOAT:
        return read_float(in, field->value);
    case FIELD_BOOL:
        return zcbor_bool_decode(in, field->value);
    case FIELD_TEXT:
        return zcbor_tstr_decode(in, field->value);
    case FIELD_BYTES:
        return zcbor_bstr_decode(in, field->value);
    case FIELD_WORDS:
        return read_words(in, field->value);
    }
    return false;
}

static bool skip_scalar(zcbor_state_t *in) {
    if (in->payload >= in->payload_end) return false;
    switch (ZCBOR_MAJOR_TYPE(*in->payload)) {
    case ZCBOR_MAJOR_TYPE_LIST:
    case ZCBOR_MAJOR_TYPE_MAP:
    case ZCBOR_MAJOR_TYPE_TAG:
        return false;
    default:
        return zcbor_any_skip(in, NULL);
    }
}

bool smp_equals(const struct zcbor_string *text, const char *word) {
    return text->len == strlen(word) && !memcmp(text->value, word, text->len);
}

bool smp_read(const struct smp_request *request, struct field *fields, uint32_t count) {
    if (!request->payload_bytes) return true;
    ZCBOR_STATE_D(in, 3, request->payload, request->payload_bytes, 1, 0);
    if (!zcbor_map_start_decode(in)) return false;
    while (!zcbor_array_at_end(in)) {
        struct zcbor_string key;
        if (!zcbor_tstr_decode(in, &key)) return false;
        uint32_t i = 0;
        while (i < count && !smp_equals(&key, fields[i].key)) i++;
        if (!(i < count ? read_value(in, &fields[i]) : skip_scalar(in))) return false;
    }
    return zcbor_map_end_decode(in);
}

/* ---- writing answers ---- */

bool put_key(zcbor_state_t *out, const char *key) {
    return zcbor_tstr_put_term(out, key, TEXT_MAX);
}

bool put_text(zcbor_state_t *out, const char *key, const char *value) {
    return put_key(out, key) && zcbor_tstr_encode_ptr(out, value, strlen(value));
}

/* Room for the longest head of a text. */
#define TEXT_HEAD_BYTES 5u

void put_text_begin(zcbor_state_t *out, const char *key, uint32_t after, struct text *text) {
    uint32_t head = (uint32_t)strlen(key) + 1 + TEXT_HEAD_BYTES, space = room(out);
    static char nowhere[1];
    if (space <= head + after)
        text_init(text, nowhere, sizeof nowhere);
    else
        text_init(text, (char *)out->payload_mut + head, space - head - after);
}

bool put_text_end(zcbor_state_t *out, const char *key, const struct text *text) {
    return put_key(out, key) && zcbor_tstr_encode_ptr(out, text->buffer, text->length);
}

bool put_u32(zcbor_state_t *out, const char *key, uint32_t value) {
    return put_key(out, key) && zcbor_uint32_put(out, value);
}

bool put_float(zcbor_state_t *out, const char *key, float value) {
    return put_key(out, key) && zcbor_float32_put(out, value);
}

bool put_bool(zcbor_state_t *out, const char *key, bool value) {
    return put_key(out, key) && zcbor_bool_put(out, value);
}

bool put_bytes(zcbor_state_t *out, const char *key, const void *value, uint32_t bytes) {
    return put_key(out, key) && zcbor_bstr_encode_ptr(out, value, bytes);
}

uint32_t room(const zcbor_state_t *out) {
    return (uint32_t)(out->payload_end - out->payload);
}

int encoded(bool all) {
    return all ? SMP_OK : SMP_EMSGSIZE;
}

int smp_ternio(int code) {
    return code ? SMP_IN_GROUP(GROUP_TERNIO, code) : SMP_OK;
}

/* ---- dispatch ---- */

static int dispatch(const struct smp_request *request, zcbor_state_t *out) {
    switch (request->group) {
    case GROUP_OS:
        return group_os(request, out);
    case GROUP_STATS:
        return group_stats(request, out);
    case GROUP_FILES:
        return group_files(request, out);
    case GROUP_SHELL:
        return group_shell(request, out);
    case GROUP_TERNIO:
        return group_ternio(request, out);
    default:
        return SMP_ENOTSUP;
    }
}

/* Version 1 knows one number only, the protocol's own; 1 is its "unknown". */
static bool put_error(zcbor_state_t *out, const struct smp_request *request, int outcome) {
    int group = (outcome >> 16) - 1, rc = outcome & 0xFFFF;
    bool ours = group == GROUP_TERNIO, named = group >= 0 && request->version > 0;
    if (group >= 0 && !named && !ours) rc = 1;
    bool done = !named || (put_key(out, "err") && zcbor_map_start_encode(out, 2) &&
                           put_u32(out, "group", (uint32_t)group));
    done = done && put_u32(out, "rc", (uint32_t)rc) && (!named || zcbor_map_end_encode(out, 2));
    return done && (!ours || put_text(out, "rsn", error_text(rc)));
}

/* Not inlined: its CBOR state would lie on the stack below every command. */
__attribute__((noinline)) static uint32_t
error_payload(const struct smp_request *request, int outcome, uint8_t *to, uint32_t capacity) {
    ZCBOR_STATE_E(out, NO_BACKUPS, to, capacity, 1);
    bool done = zcbor_map_start_encode(out, MAP_MEMBERS) && put_error(out, request, outcome) &&
                zcbor_map_end_encode(out, MAP_MEMBERS);
    return done ? (uint32_t)(out->payload - to) : 0;
}

/* The answer's CBOR at `to`; 0 when even an error does not fit. */
static uint32_t answer_payload(const struct smp_request *request, uint8_t *to, uint32_t capacity) {
    if (request->version > 1) return error_payload(request, SMP_TOO_NEW, to, capacity);
    ZCBOR_STATE_E(out, NO_BACKUPS, to, capacity - CLOSING_BYTES, 1);
    bool begun = zcbor_map_start_encode(out, MAP_MEMBERS);
    int outcome = dispatch(request, out);
    out->payload_end += CLOSING_BYTES;
    if (outcome) return error_payload(request, outcome, to, capacity);
    if (!begun || !zcbor_map_end_encode(out, MAP_MEMBERS))
        return error_payload(request, SMP_EMSGSIZE, to, capacity);
    return (uint32_t)(out->payload - to);
}

uint32_t smp_handle(const uint8_t *message, uint32_t bytes, uint8_t *answer, uint32_t capacity) {
    if (bytes < SMP_HEADER_BYTES) return 0;
    struct smp_request request = {
        .write = (message[0] & 7) == 2,
        .version = message[0] >> 3 & 3,
        .id = message[7],
        .group = (uint16_t)(message[4] << 8 | message[5]),
        .payload = message + SMP_HEADER_BYTES,
        .payload_bytes = (uint32_t)message[2] << 8 | message[3],
    };
    if ((message[0] & 7) != 0 && !request.write) return 0; /* an answer, not a request */
    if (request.payload_bytes != bytes - SMP_HEADER_BYTES) return 0;
    uint32_t length =
        answer_payload(&request, answer + SMP_HEADER_BYTES, capacity - SMP_HEADER_BYTES);
    memcpy(answer, message, SMP_HEADER_BYTES);
    answer[0] = (uint8_t)(message[0] + 1);
    answer[1] = 0;
    answer[2] = (uint8_t)(length >> 8);
    answer[3] = (uint8_t)length;
    return SMP_HEADER_BYTES + length;
}
