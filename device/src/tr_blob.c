/* tr_blob.c - the loader: checks everything a blob says (device/FORMAT.md sections 1 to 4) before
 * anything is believed. Sizes are computed in 64 bits, so that no product of 32-bit fields can
 * wrap. */
#include "tr_internal.h"

enum {
    SEC_IODS,
    SEC_LABL,
    SEC_VOCB,
    SEC_TDIR,
    SEC_ADIR,
    SEC_INFR,
    SEC_ADPT,
    SEC_META,
    SEC_DATA,
    SEC_COUNT
};
enum { MAX_OUTPUTS = 1024, MAX_SIDE = 65535, MAX_RANK = 64, MAX_FACTORS = 1 << 28 };

static int is_zero(const void *data, size_t bytes) {
    const uint8_t *p = data;
    for (size_t k = 0; k < bytes; ++k) {
        if (p[k]) return 0;
    }
    return 1;
}

/* Length of the UTF-8 text at p[0 .. bytes), which must end with a NUL inside and hold no control
 * characters (a console prints it); -1 when it does not. */
static int32_t text_length(const uint8_t *p, uint32_t bytes) {
    uint32_t k = 0;
    while (k < bytes && p[k]) {
        uint32_t lead = p[k++], more = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        if (lead < 0x20 || lead == 0x7F || (lead >= 0x80 && lead < 0xC2) || lead > 0xF4) return -1;
        uint32_t code = more ? lead & (0x3Fu >> more) : lead;
        for (uint32_t n = 0; n < more; ++n) {
            if (k == bytes || (p[k] & 0xC0) != 0x80) return -1;
            code = code << 6 | (p[k++] & 0x3Fu);
        }
        if (code >= 0x80 && code < 0xA0) return -1;
        if ((more == 2 && code < 0x800) || (more == 3 && (code < 0x10000 || code > 0x10FFFF)))
            return -1;
        if (code >= 0xD800 && code < 0xE000) return -1;
    }
    return k < bytes ? (int32_t)k : -1;
}

/* ---- header and sections ---- */

static tr_status check_frame(const uint8_t *blob, uint32_t bytes) {
    const tr_blob_header *header = (const tr_blob_header *)(const void *)blob;
    if (bytes < sizeof *header) return TR_ERR_TRUNCATED;
    if (memcmp(header->magic, "TERN", 4) != 0) return TR_ERR_MAGIC;
    if (header->major != TR_MAJOR || header->minor != TR_MINOR) return TR_ERR_VERSION;
    if (bytes < header->total_bytes) return TR_ERR_TRUNCATED;
    if (bytes > header->total_bytes || bytes % 16 || header->digest_end != bytes)
        return TR_ERR_HEADER;
    if (tr_crc32(0, blob + TR_CRC_START, bytes - TR_CRC_START) != header->crc32)
        return TR_ERR_CHECKSUM;
    uint8_t digest[32];
    tr_sha256(blob + TR_DIGEST_START, bytes - TR_DIGEST_START, digest);
    if (memcmp(digest, header->digest, sizeof digest) != 0) return TR_ERR_DIGEST;
    int32_t name = text_length((const uint8_t *)header->name, sizeof header->name);
    if (name < 1 || !is_zero(header->name + name, sizeof header->name - (uint32_t)name))
        return TR_ERR_HEADER;
    if (header->section_count < 1 || header->section_count > 16) return TR_ERR_HEADER;
    if (header->infer_arena % 16 || header->adapt_arena % 16) return TR_ERR_HEADER;
    return TR_OK;
}

/* What the table of FORMAT.md section 1 says of each section: bytes = head + count * entry; entry
 * 0: any length. */
static const struct {
    char type[5];
    uint8_t required, head, entry;
} kinds[SEC_COUNT] = {
    [SEC_IODS] = {"IODS", 1, 0, sizeof(tr_io)},
    [SEC_LABL] = {"LABL", 0, 0, 0},
    [SEC_VOCB] = {"VOCB", 0, 0, 0},
    [SEC_TDIR] = {"TDIR", 1, 0, sizeof(tr_tensor)},
    [SEC_ADIR] = {"ADIR", 0, 0, sizeof(tr_adapter)},
    [SEC_INFR] = {"INFR", 1, sizeof(tr_program), sizeof(tr_instr)},
    [SEC_ADPT] = {"ADPT", 0, sizeof(tr_program), sizeof(tr_instr)},
    [SEC_META] = {"META", 1, 0, 0},
    [SEC_DATA] = {"DATA", 1, 0, 0},
};

static tr_status find_sections(const uint8_t *blob, const tr_section *found[SEC_COUNT]) {
    const tr_blob_header *header = (const tr_blob_header *)(const void *)blob;
    const tr_section *table = (const tr_section *)(const void *)(header + 1);
    uint64_t end = sizeof *header + header->section_count * sizeof *table;
    if (end > header->total_bytes) return TR_ERR_SECTION;
    for (uint32_t k = 0; k < header->section_count; ++k) {
        const tr_section *section = &table[k];
        if (section->offset % 16 || section->offset < end) return TR_ERR_SECTION;
        end = (uint64_t)section->offset + section->bytes;
        if (end > header->total_bytes) return TR_ERR_SECTION;
        unsigned kind = 0;
        while (kind < SEC_COUNT && memcmp(section->type, kinds[kind].type, 4) != 0) ++kind;
        if (kind == SEC_COUNT || found[kind]) return TR_ERR_SECTION;
        if (kinds[kind].entry) {
            if (section->count < 1) return TR_ERR_SECTION;
            if (kinds[kind].head + (uint64_t)section->count * kinds[kind].entry != section->bytes)
                return TR_ERR_SECTION;
        }
        found[kind] = section;
    }
    for (unsigned kind = 0; kind < SEC_COUNT; ++kind) {
        if (kinds[kind].required && !found[kind]) return TR_ERR_SECTION;
    }
    if (found[SEC_IODS]->count != 1 || found[SEC_META]->count != 1 || found[SEC_DATA]->count != 0)
        return TR_ERR_SECTION;
    /* LABL or VOCB: check_words */
    return found[SEC_ADPT] && !found[SEC_ADIR] ? TR_ERR_SECTION : TR_OK;
}

/* ---- tensors ---- */

static tr_status check_floats(const float *x, uint32_t count) {
    for (uint32_t k = 0; k < count; ++k) {
        if (!tr_finite(x[k])) return TR_ERR_TENSOR;
    }
    return TR_OK;
}

static tr_status check_halves(const tr_u16 *x, uint32_t count) {
    for (uint32_t k = 0; k < count; ++k) {
        if ((x[k] & 0x7C00) == 0x7C00) return TR_ERR_TENSOR;
    }
    return TR_OK;
}

/* Four trits a byte, none of them 3. */
static tr_status check_trits(const tr_u32 *x, uint32_t words) {
    for (uint32_t k = 0; k < words; ++k) {
        if (x[k] & x[k] >> 1 & 0x55555555u) return TR_ERR_TENSOR;
    }
    return TR_OK;
}

/* The same of a T2D tensor, whose rows are merged in pairs. */
static tr_status check_merged(const tr_u32 *x, uint32_t rows8, uint32_t cols16) {
    for (uint32_t left = cols16; left;) {
        uint32_t width = left < 64 ? left : 64, words = width / 16;
        for (uint32_t pair = 0; pair < rows8 / 2; ++pair, x += 2 * words) {
            for (uint32_t k = 0; k < words; ++k) {
                tr_u32 rows[2];
                tr_unmerge(x[k], x[k + words], rows);
                if (check_trits(rows, 2)) return TR_ERR_TENSOR;
            }
        }
        left -= width;
    }
    return TR_OK;
}

static tr_status check_tensor(const tr_tensor *tensor, const uint8_t *data, uint32_t data_bytes) {
    uint64_t rows = tensor->rows, cols = tensor->cols, count = rows * cols, bytes;
    if (!is_zero(tensor->reserved0, sizeof tensor->reserved0)) return TR_ERR_TENSOR;
    if (!is_zero(tensor->reserved1, sizeof tensor->reserved1)) return TR_ERR_TENSOR;
    if (rows < 1 || rows > MAX_SIDE || cols < 1 || cols > MAX_SIDE) return TR_ERR_TENSOR;
    switch (tensor->dtype) {
    case TR_F32:
        bytes = 4 * count;
        break;
    case TR_F16:
        bytes = 2 * count;
        break;
    case TR_I8:
        bytes = tr_round_up(count, 4) + 4 * rows;
        break;
    case TR_I16:
        bytes = tr_round_up(2 * count, 4) + 4 * rows;
        break;
    case TR_T2:
    case TR_T2D:
        bytes = tr_round_up(rows, 8) * tr_round_up(cols, 16) / 4;
        break;
    default:
        return TR_ERR_TENSOR;
    }
    if (bytes != tensor->bytes || tensor->offset % 16) return TR_ERR_TENSOR;
    if (tensor->offset + bytes > data_bytes) return TR_ERR_TENSOR;
    const void *start = data + tensor->offset;
    if (tensor->dtype == TR_T2 || tensor->dtype == TR_T2D) {
        if (!tr_finite(tensor->gamma) || !(tensor->gamma > 0.0f)) return TR_ERR_TENSOR;
        return tensor->dtype == TR_T2 ? check_trits(start, tensor->bytes / 4)
                                      : check_merged(start, (uint32_t)tr_round_up(rows, 8),
                                                     (uint32_t)tr_round_up(cols, 16));
    }
    if (tr_bits(tensor->gamma) != 0) return TR_ERR_TENSOR;
    if (tensor->dtype == TR_F16) return check_halves(start, (uint32_t)count);
    if (tensor->dtype == TR_F32) return check_floats(start, (uint32_t)count);
    const uint8_t *scales = (const uint8_t *)start + bytes - 4 * rows; /* behind the integers */
    return check_floats((const float *)(const void *)scales, tensor->rows);
}

/* ---- adapters ---- */

static tr_status check_adapters(tr_model *model) {
    uint64_t next = 0;
    for (uint32_t k = 0; k < model->adapter_count; ++k) {
        const tr_adapter *adapter = tr_adapter_at(model, k);
        if (adapter->in < 1 || adapter->in > MAX_SIDE || adapter->out < 1 ||
            adapter->out > MAX_SIDE)
            return TR_ERR_ADAPTER;
        if (adapter->rank < 1 || adapter->rank > MAX_RANK || adapter->reserved)
            return TR_ERR_ADAPTER;
        if (!tr_finite(adapter->scale) || !tr_finite(adapter->init_bound)) return TR_ERR_ADAPTER;
        if (!(adapter->init_bound >= 0.0f) || adapter->a != next) return TR_ERR_ADAPTER;
        next += (uint64_t)adapter->rank * adapter->in;
        if (adapter->b != next) return TR_ERR_ADAPTER;
        next += (uint64_t)adapter->rank * adapter->out;
        if (next > MAX_FACTORS) return TR_ERR_ADAPTER;
    }
    model->adapter_floats = (uint32_t)next;
    return TR_OK;
}

/* ---- input and output ---- */

static tr_status check_tokens(const tr_io *io) {
    if (io->channels != 1 || io->patch != 1) return TR_ERR_SECTION;
    if (io->length < 2 || io->length > MAX_SIDE) return TR_ERR_SECTION;
    return tr_bits(io->sample_rate_hz) || io->input_scale ? TR_ERR_SECTION : TR_OK;
}

static tr_status check_io(const tr_io *io, const tr_model *model) {
    if (io->channels < 1 || io->length < 1 || io->patch < 1) return TR_ERR_SECTION;
    if ((uint64_t)io->channels * io->length > 0x7FFFFFFFu) return TR_ERR_SECTION;
    if (!tr_finite(io->sample_rate_hz) || !(io->sample_rate_hz >= 0.0f)) return TR_ERR_SECTION;
    if (io->outputs < 2 || io->outputs > MAX_OUTPUTS) return TR_ERR_SECTION;
    if (!is_zero(io->reserved, sizeof io->reserved)) return TR_ERR_SECTION;
    if (io->kind == TR_TOKENS) return check_tokens(io);
    if (io->kind != TR_WINDOW || io->input_scale >= model->tensor_count) return TR_ERR_SECTION;
    const tr_tensor *scale = tr_tensor_at(model, io->input_scale);
    if (scale->dtype != TR_F32 || scale->rows != 1 || scale->cols != io->channels)
        return TR_ERR_SECTION;
    return TR_OK;
}

/* ---- labels and vocabulary ---- */

enum { VOCABULARY_CHARACTERS = 1, VOCABULARY_BYTES = 2 };
static const uint32_t ANY_OTHER = 0xFFFFFFFFu;

static tr_status check_labels(const uint8_t *p, uint32_t bytes, uint32_t count) {
    for (; count; --count) {
        int32_t length = text_length(p, bytes);
        if (length < 0) return TR_ERR_SECTION;
        p += length + 1;
        bytes -= (uint32_t)length + 1;
    }
    return bytes ? TR_ERR_SECTION : TR_OK;
}

/* p: the form, then for characters `count` code points in ascending order. */
static tr_status check_vocabulary(const tr_u32 *p, uint32_t bytes, uint32_t count) {
    if (bytes == 4 && p[0] == VOCABULARY_BYTES) return count == 256 ? TR_OK : TR_ERR_SECTION;
    if (bytes != 4 + 4 * count || p[0] != VOCABULARY_CHARACTERS) return TR_ERR_SECTION;
    uint32_t last = 0;
    for (; count; --count) {
        uint32_t code = *++p, scalar = code < 0xD800 || (code >= 0xE000 && code <= 0x10FFFF);
        if (code <= last || !(scalar || code == ANY_OTHER)) return TR_ERR_SECTION;
        last = code;
    }
    return TR_OK;
}

/* What the outputs are called: LABL of a classifier, VOCB of a model of tokens. */
static tr_status check_words(const tr_model *model, const tr_section *const found[SEC_COUNT]) {
    const tr_section *labels = found[SEC_LABL], *vocabulary = found[SEC_VOCB];
    int tokens = model->kind == TR_TOKENS;
    if ((labels != NULL) == tokens || (vocabulary != NULL) != tokens) return TR_ERR_SECTION;
    if ((tokens ? vocabulary : labels)->count != model->outputs) return TR_ERR_SECTION;
    return tokens ? check_vocabulary((const tr_u32 *)(const void *)model->labels,
                                     model->labels_bytes, model->outputs)
                  : check_labels(model->labels, model->labels_bytes, model->outputs);
}

const char *tr_model_label(const tr_model *model, uint32_t index) {
    if (!model || model->kind != TR_WINDOW || index >= model->outputs) return NULL;
    const char *label = (const char *)model->labels;
    while (index--) label += strlen(label) + 1;
    return label;
}

static const tr_u32 *vocabulary_of(const tr_model *model) {
    return model && model->kind == TR_TOKENS ? (const tr_u32 *)(const void *)model->labels : NULL;
}

int tr_model_bytes(const tr_model *model) {
    const tr_u32 *vocabulary = vocabulary_of(model);
    return vocabulary && vocabulary[0] == VOCABULARY_BYTES;
}

int32_t tr_model_token(const tr_model *model, uint32_t character) {
    const tr_u32 *codes = vocabulary_of(model);
    if (!codes) return TR_ANY_OTHER;
    if (tr_model_bytes(model)) return character < 256 ? (int32_t)character : TR_ANY_OTHER;
    ++codes;
    uint32_t low = 0, high = model->outputs; /* the first code >= character is in low .. high */
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (codes[middle] < character)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < model->outputs && codes[low] == character) return (int32_t)low;
    return codes[model->outputs - 1] == ANY_OTHER ? (int32_t)model->outputs - 1 : TR_ANY_OTHER;
}

int32_t tr_model_character(const tr_model *model, uint32_t token) {
    const tr_u32 *codes = vocabulary_of(model);
    if (!codes || token >= model->outputs) return TR_ANY_OTHER;
    if (tr_model_bytes(model)) return (int32_t)token;
    return codes[1 + token] == ANY_OTHER ? TR_ANY_OTHER : (int32_t)codes[1 + token];
}

/* ---- all of it ---- */

static void take_sections(tr_model *model, const tr_section *const found[SEC_COUNT]) {
    const tr_blob_header *header = (const tr_blob_header *)(const void *)model->blob;
    model->name = header->name;
    model->digest = header->digest;
    model->infer_arena = header->infer_arena;
    model->adapt_arena = header->adapt_arena;
    model->tensor_count = found[SEC_TDIR]->count;
    model->tensors = model->blob + found[SEC_TDIR]->offset;
    model->data = model->blob + found[SEC_DATA]->offset;
    const tr_section *words = found[SEC_LABL] ? found[SEC_LABL] : found[SEC_VOCB];
    model->labels = words ? model->blob + words->offset : NULL;
    model->labels_bytes = words ? words->bytes : 0;
    model->infer = model->blob + found[SEC_INFR]->offset;
    model->infer_count = found[SEC_INFR]->count;
    if (found[SEC_ADIR]) {
        model->adapter_count = found[SEC_ADIR]->count;
        model->adapters = model->blob + found[SEC_ADIR]->offset;
    }
    if (found[SEC_ADPT] && TR_ADAPT) {
        model->adapt = model->blob + found[SEC_ADPT]->offset;
        model->adapt_count = found[SEC_ADPT]->count;
    }
}

static void take_io(tr_model *model, const tr_io *io) {
    model->kind = (tr_kind)io->kind;
    model->channels = io->channels;
    model->length = io->length;
    model->outputs = io->outputs;
    model->sample_rate_hz = io->sample_rate_hz;
    if (model->kind == TR_WINDOW)
        model->input_scale =
            (const float *)(const void *)(model->data +
                                          tr_tensor_at(model, io->input_scale)->offset);
}

static tr_status check_programs(tr_model *model) {
    tr_status status = TR_OK;
    if (model->adapt)
        status = tr_program_check(model, (const tr_program *)(const void *)model->adapt,
                                  model->adapt_count, 1, &model->adapt_work);
    if (status) return status;
    return tr_program_check(model, (const tr_program *)(const void *)model->infer,
                            model->infer_count, 0, &model->infer_work);
}

static tr_status check_model(tr_model *model) {
    const tr_section *found[SEC_COUNT] = {NULL};
    tr_status status = find_sections(model->blob, found);
    if (status) return status;
    take_sections(model, found);
    for (uint32_t k = 0; k < model->tensor_count && !status; ++k) {
        status = check_tensor(tr_tensor_at(model, k), model->data, found[SEC_DATA]->bytes);
    }
    if (!status) status = check_adapters(model);
    if (status) return status;

    const tr_io *io = (const tr_io *)(const void *)(model->blob + found[SEC_IODS]->offset);
    status = check_io(io, model);
    if (status) return status;
    take_io(model, io);
    status = check_words(model, found);
    if (status) return status;

    if (found[SEC_ADPT] && model->kind == TR_TOKENS) return TR_ERR_SECTION;
    if (!found[SEC_ADPT] && model->adapt_arena) return TR_ERR_HEADER;
    if (!TR_ADAPT) model->adapt_arena = 0;
    return check_programs(model);
}

tr_status tr_model_open(tr_model *model, const void *blob, uint32_t bytes) {
    if (!model || !blob) return TR_ERR_ARGUMENT;
    memset(model, 0, sizeof *model);
    if ((uintptr_t)blob % 16) return TR_ERR_ALIGNMENT;
    tr_status status = check_frame(blob, bytes);
    if (status) return status;
    model->blob = blob;
    model->blob_bytes = bytes;
    status = check_model(model);
    if (status) memset(model, 0, sizeof *model);
    return status;
}
