/* group_files.c - SMP group 8 (file system) over the slots: /model and /adapter are the files. */
#include <string.h>

#include "errors.h"
#include "link/smp.h"
#include "model/model.h"

/* Error codes of the group, as in Zephyr's fs_mgmt. */
enum {
    FILE_INVALID_NAME = 2,
    FILE_NOT_FOUND = 3,
    FILE_WRITE_FAILED = 10,
    FILE_OFFSET_NOT_VALID = 11,
    FILE_OFFSET_TOO_LARGE = 12,
    FILE_NO_HASH = 13
};

/* The first bytes of a blob or adapter hold its digest or CRC: files that agree in as many are the
 * same file. */
#define IDENTITY_BYTES    48u
#define DOWNLOAD_OVERHEAD 32u /* keys and numbers of a download's answer beside the data */

static int refusal; /* why the last upload was refused, an error_code; 0: it was not */

const char *group_files_refusal(void) {
    return refusal ? error_text(refusal) : "";
}

/* Clients that know only this group must be able to read the answer: it carries a code of the
 * group, and the reason is in the information of group 64. */
static int refuse(int code) {
    refusal = code;
    return SMP_IN_GROUP(GROUP_FILES, FILE_WRITE_FAILED);
}

static bool find_kind(const struct zcbor_string *name, enum slot_kind *kind) {
    *kind = smp_equals(name, "/model") ? SLOT_MODEL : SLOT_ADAPTER;
    return *kind == SLOT_MODEL || smp_equals(name, "/adapter");
}

/* The bytes behind a name as a download gives them. */
static int open_file(const struct zcbor_string *name, const uint8_t **data, uint32_t *bytes) {
    enum slot_kind kind;
    if (!find_kind(name, &kind)) return SMP_IN_GROUP(GROUP_FILES, FILE_INVALID_NAME);
    if (!model_current()) return SMP_IN_GROUP(GROUP_FILES, FILE_NOT_FOUND);
    if (kind == SLOT_MODEL) {
        *data = model_current()->blob;
        *bytes = model_current()->blob_bytes;
        return SMP_OK;
    }
    int code = model_adapter_file(data, bytes);
    return code == ERR_NO_ADAPTER ? SMP_IN_GROUP(GROUP_FILES, FILE_NOT_FOUND) : smp_ternio(code);
}

/* ---- upload ---- */

static int install_when_complete(enum slot_kind kind, zcbor_state_t *out) {
    uint32_t offset = 0, bytes = 0;
    slots_pending(kind, &offset, &bytes);
    if (offset == bytes) {
        int code = model_install(kind);
        if (code) return refuse(code);
    }
    return encoded(put_u32(out, "off", offset));
}

/* Whether a first block belongs to the write that is under way. */
static bool resumes(enum slot_kind kind, const struct zcbor_string *data, uint32_t length) {
    uint32_t offset, bytes;
    return slots_pending(kind, &offset, &bytes) && bytes == length && data->len >= IDENTITY_BYTES &&
           offset >= data->len && !memcmp(slots_pending_data(kind), data->value, data->len);
}

static int begin_upload(enum slot_kind kind, uint32_t length) {
    int code = length ? model_accepts(kind, length) : TR_ERR_TRUNCATED;
    if (code) return code;
    return slots_begin(kind, length) ? 0 : ERR_STORAGE;
}

struct block {
    enum slot_kind kind;
    uint32_t off, length; /* length: of the whole file, in the first block */
    struct zcbor_string data;
};

/* Not inlined: on the stack it would lie below the check of a complete file, the deepest of all. */
__attribute__((noinline)) static int read_block(const struct smp_request *request,
                                                struct block *block) {
    struct zcbor_string name;
    struct field fields[] = {{"off", FIELD_U32, &block->off, false},
                             {"len", FIELD_U32, &block->length, false},
                             {"data", FIELD_BYTES, &block->data, false},
                             {"name", FIELD_TEXT, &name, false}};
    if (!smp_read(request, fields, 4) || !fields[0].found || !fields[2].found || !fields[3].found)
        return SMP_EINVAL;
    if (!block->off && !fields[1].found) return SMP_EINVAL;
    return find_kind(&name, &block->kind) ? SMP_OK : SMP_IN_GROUP(GROUP_FILES, FILE_INVALID_NAME);
}

static int upload(const struct smp_request *request, zcbor_state_t *out) {
    struct block block = {0};
    uint32_t expected, bytes;
    refusal = 0;
    int outcome = read_block(request, &block);
    if (outcome) return outcome;
    if (block.off == 0) {
        if (resumes(block.kind, &block.data, block.length))
            return install_when_complete(block.kind, out);
        int code = begin_upload(block.kind, block.length);
        if (code) return refuse(code);
    }
    if (!slots_pending(block.kind, &expected, &bytes))
        return SMP_IN_GROUP(GROUP_FILES, FILE_OFFSET_NOT_VALID);
    if (block.off != expected) return encoded(put_u32(out, "off", expected));
    if (block.data.len > bytes - expected) return SMP_IN_GROUP(GROUP_FILES, FILE_OFFSET_TOO_LARGE);
    if (!slots_write(block.kind, block.data.value, (uint32_t)block.data.len))
        return refuse(ERR_STORAGE);
    return install_when_complete(block.kind, out);
}

/* ---- download, status, checksums ---- */

static int download(const struct smp_request *request, zcbor_state_t *out) {
    static uint32_t steps_at_start; /* an adapter in training may change between two blocks */
    uint32_t off = 0, bytes;
    struct zcbor_string name;
    const uint8_t *data;
    struct field fields[] = {{"off", FIELD_U32, &off, false}, {"name", FIELD_TEXT, &name, false}};
    if (!smp_read(request, fields, 2) || !fields[0].found || !fields[1].found) return SMP_EINVAL;
    int outcome = open_file(&name, &data, &bytes);
    if (outcome) return outcome;
    if (off > bytes) return SMP_IN_GROUP(GROUP_FILES, FILE_OFFSET_TOO_LARGE);
    if (off == 0) steps_at_start = model_adapter_steps();
    if (smp_equals(&name, "/adapter") && steps_at_start != model_adapter_steps())
        return SMP_IN_GROUP(GROUP_FILES, FILE_OFFSET_NOT_VALID);
    uint32_t space = room(out) - DOWNLOAD_OVERHEAD,
             count = bytes - off < space ? bytes - off : space;
    return encoded(put_u32(out, "off", off) && put_bytes(out, "data", data + off, count) &&
                   (off || put_u32(out, "len", bytes)));
}

static int status(const struct smp_request *request, zcbor_state_t *out) {
    uint32_t bytes;
    struct zcbor_string name;
    const uint8_t *data;
    struct field fields[] = {{"name", FIELD_TEXT, &name, false}};
    if (!smp_read(request, fields, 1) || !fields[0].found) return SMP_EINVAL;
    int outcome = open_file(&name, &data, &bytes);
    return outcome ? outcome : encoded(put_u32(out, "len", bytes));
}

/* Not inlined: the stack below an upload. */
__attribute__((noinline)) static int checksum(const struct smp_request *request,
                                              zcbor_state_t *out) {
    uint32_t off = 0, limit = UINT32_MAX, bytes;
    struct zcbor_string name, type = {(const uint8_t *)"crc32", 5};
    const uint8_t *data;
    struct field fields[] = {{"name", FIELD_TEXT, &name, false},
                             {"type", FIELD_TEXT, &type, false},
                             {"off", FIELD_U32, &off, false},
                             {"len", FIELD_U32, &limit, false}};
    if (!smp_read(request, fields, 4) || !fields[0].found) return SMP_EINVAL;
    bool sha = smp_equals(&type, "sha256");
    if (!sha && !smp_equals(&type, "crc32")) return SMP_IN_GROUP(GROUP_FILES, FILE_NO_HASH);
    int outcome = open_file(&name, &data, &bytes);
    if (outcome) return outcome;
    if (off > bytes) return SMP_IN_GROUP(GROUP_FILES, FILE_OFFSET_TOO_LARGE);
    uint32_t count = bytes - off < limit ? bytes - off : limit;
    uint8_t digest[32];
    if (sha) tr_sha256(data + off, count, digest);
    bool done = put_text(out, "type", sha ? "sha256" : "crc32") &&
                (!off || put_u32(out, "off", off)) && put_u32(out, "len", count);
    return encoded(done && (sha ? put_bytes(out, "output", digest, sizeof digest)
                                : put_u32(out, "output", tr_crc32(0, data + off, count))));
}

static bool put_type(zcbor_state_t *out, const char *name, uint32_t format, uint32_t bytes) {
    return put_key(out, name) && zcbor_map_start_encode(out, 2) && put_u32(out, "format", format) &&
           put_u32(out, "size", bytes) && zcbor_map_end_encode(out, 2);
}

static int checksum_types(zcbor_state_t *out) {
    return encoded(put_key(out, "types") && zcbor_map_start_encode(out, 2) &&
                   put_type(out, "crc32", 0, 4) && put_type(out, "sha256", 1, 32) &&
                   zcbor_map_end_encode(out, 2));
}

int group_files(const struct smp_request *request, zcbor_state_t *out) {
    switch (request->id) {
    case 0:
        return request->write ? upload(request, out) : download(request, out);
    case 1:
        return status(request, out);
    case 2:
        return checksum(request, out);
    case 3:
        return checksum_types(out);
    case 4:
        return SMP_OK; /* nothing is held open */
    default:
        return SMP_ENOTSUP;
    }
}
