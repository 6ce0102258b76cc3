/* fuzz_blob.c - libFuzzer target: any bytes as a blob, as they come and again with sizes, digest
 * and CRC made right, as a hostile packer would. What the loader accepts is run in arenas of
 * exactly the size that the blob names. */
#include <stdio.h>
#include <stdlib.h>

#include "../../device/src/tr_internal.h"

enum { MAX_ARENA = 1 << 24, MAX_WORK = 20000000, STEPS = 3, MAX_TOKENS = 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
unsigned long fuzz_accepted; /* for the driver's report */

/* Exactly `bytes` bytes, so that the sanitizer sees the first one too far. malloc aligns to 16. */
static void *exactly(uint32_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    if (!p || (uintptr_t)p % 16) abort();
    memset(p, 0x7F, bytes);
    return p;
}

/* Absurd weights may give logits that are not finite; nothing else may go wrong. */
static int bad(tr_status status) {
    return status != TR_OK && status != TR_ERR_VALUE;
}

/* One stream to a full context, and a token chosen from its last logits. */
static void run_stream(tr_session *session, const uint8_t *data, size_t size) {
    const tr_model *model = session->model;
    const float *logits = NULL;
    uint32_t *weights = exactly(4 * model->outputs);
    tr_sampler sampler = {1.0f, 5, 0.9f, size};
    for (uint32_t k = 0; k < model->length && k < MAX_TOKENS; ++k) {
        if (bad(tr_step(session, data[k % size] % model->outputs, &logits))) abort();
        if (tr_sample(&sampler, logits, model->outputs, weights) >= model->outputs) abort();
    }
    session->position = model->length - 1; /* the last row */
    if (bad(tr_step(session, model->outputs - 1, &logits))) abort();
    if (tr_step(session, 0, &logits) != TR_ERR_CONTEXT) abort();
    for (uint32_t k = 0; k < model->outputs; ++k) {
        int32_t character = tr_model_character(model, k);
        if (character >= 0 && tr_model_token(model, (uint32_t)character) != (int32_t)k) abort();
    }
    free(weights);
}

/* Inference in the smallest arena, then training in the larger one, and its adapter. */
static void run_windows(tr_session *session, const uint8_t *data, size_t size) {
    const tr_model *model = session->model;
    uint32_t count = model->channels * model->length;
    uint32_t arena_bytes = model->adapt ? model->adapt_arena : model->infer_arena;
    int16_t *window = exactly(2 * count);
    for (uint32_t k = 0; k < count; ++k) window[k] = (int16_t)(data[k % size] * 257 - 32768);
    void *arena = exactly(arena_bytes);
    const float *logits;
    float *probs = exactly(4 * model->outputs);
    if (bad(tr_infer(session, window, count, &logits))) abort();
    if (tr_classify(logits, model->outputs, probs) >= model->outputs) abort();
    for (uint32_t k = 0; k < model->outputs; ++k) {
        if (!tr_model_label(model, k)) abort();
    }

    tr_adapt_config config = tr_adapt_defaults();
    if (tr_session_init(session, model, arena, arena_bytes)) abort();
    if (model->adapt && tr_adapt_begin(session, &config)) abort();
    for (uint32_t k = 0; model->adapt && k < STEPS; ++k) {
        tr_status status = tr_adapt_step(session, window, count, k % model->outputs, NULL);
        if (status && status != TR_ERR_VALUE) abort();
    }
    if (model->adapt) {
        uint32_t bytes = tr_adapter_bytes(model), used;
        void *file = exactly(bytes);
        if (tr_adapter_export(session, file, bytes, &used) || used != bytes) abort();
        if (tr_adapter_attach(session, file, bytes)) abort();
        if (bad(tr_infer(session, window, count, &logits))) abort();
        free(file);
    }
    free(window);
    free(arena);
    free(probs);
}

static void run(const tr_model *model, const uint8_t *data, size_t size) {
    uint32_t arena_bytes = model->adapt ? model->adapt_arena : model->infer_arena;
    if (arena_bytes > MAX_ARENA || model->infer_work > MAX_WORK || model->adapt_work > MAX_WORK)
        return;
    fuzz_accepted++;
    void *arena = exactly(model->infer_arena);
    tr_session session;
    if (tr_session_init(&session, model, arena, model->infer_arena)) abort();
    if (model->kind == TR_TOKENS)
        run_stream(&session, data, size);
    else
        run_windows(&session, data, size);
    free(arena);
}

static void seal(uint8_t *blob, uint32_t size) {
    tr_blob_header *header = (tr_blob_header *)(void *)blob;
    memcpy(header->magic, "TERN", 4);
    header->major = TR_MAJOR;
    header->minor = TR_MINOR;
    header->total_bytes = header->digest_end = size;
    tr_sha256(blob + TR_DIGEST_START, size - TR_DIGEST_START, header->digest);
    header->crc32 = tr_crc32(0, blob + TR_CRC_START, size - TR_CRC_START);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0 || size > MAX_ARENA) return 0;
    uint32_t bytes = (uint32_t)size;
    uint8_t *blob = exactly(bytes);
    memcpy(blob, data, size);
    tr_model model;
    if (tr_model_open(&model, blob, bytes) == TR_OK) run(&model, data, size);
    if (bytes >= sizeof(tr_blob_header)) {
        seal(blob, bytes);
        if (tr_model_open(&model, blob, bytes) == TR_OK) {
            uint32_t crc = tr_crc32(0, blob, bytes);
            run(&model, data, size);
            if (tr_crc32(0, blob, bytes) != crc) abort(); /* flash is not writable */
            if (!tr_adapter_check(&model, blob, bytes)) abort();
        }
    }
    free(blob);
    return 0;
}
