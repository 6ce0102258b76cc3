/* tr_session.c - a model at work: binding it to an arena, running `infer`, reading logits. */
#include "tr_internal.h"
#include "tr_math.h"

TR_SMALL tr_status tr_session_init(tr_session *session, const tr_model *model, void *arena,
                                   uint32_t arena_bytes) {
    if (!session || !model || !model->blob || !arena) return TR_ERR_ARGUMENT;
    if ((uintptr_t)arena % 16) return TR_ERR_ALIGNMENT;
    if (arena_bytes < model->infer_arena) return TR_ERR_ARENA;
    memset(session, 0, sizeof *session);
    session->model = model;
    session->arena = arena;
    session->arena_bytes = arena_bytes;
    session->config = tr_adapt_defaults();
    return TR_OK;
}

/* Weights and factors are finite, what is computed from them need not be. */
TR_SMALL TR_NOINLINE static tr_status finite_logits(const float *logits, uint32_t count) {
    for (uint32_t k = 0; k < count; ++k) {
        if (!tr_finite(logits[k])) return TR_ERR_VALUE;
    }
    return TR_OK;
}

TR_SMALL tr_status tr_infer(tr_session *session, const int16_t *input, uint32_t count,
                            const float **logits) {
    if (!session || !session->model || !input || !logits) return TR_ERR_ARGUMENT;
    const tr_model *model = session->model;
    const tr_program *program = (const tr_program *)(const void *)model->infer;
    if (model->kind != TR_WINDOW) return TR_ERR_KIND;
    if (count != model->channels * model->length) return TR_ERR_ARGUMENT;
    memmove(session->arena + 4 * program->input, input, 2 * (size_t)count);
    tr_program_run(session, program, model->infer_count);
    *logits = (const float *)(void *)(session->arena + 4 * program->logits);
    return finite_logits(*logits, model->outputs);
}

/* ---- streams ---- */

void tr_stream_reset(tr_session *session) {
    session->position = 0;
}

TR_SMALL tr_status tr_step(tr_session *session, uint32_t token, const float **logits) {
    if (!session || !session->model || !logits) return TR_ERR_ARGUMENT;
    const tr_model *model = session->model;
    const tr_program *program = (const tr_program *)(const void *)model->infer;
    if (model->kind != TR_TOKENS) return TR_ERR_KIND;
    if (token >= model->outputs) return TR_ERR_ARGUMENT;
    if (session->position >= model->length) return TR_ERR_CONTEXT;
    session->token = token;
    tr_program_run(session, program, model->infer_count);
    ++session->position;
    *logits = (const float *)(void *)(session->arena + 4 * program->logits);
    return finite_logits(*logits, model->outputs);
}

/* ---- rings ---- */

TR_SMALL tr_status tr_ring_init(tr_ring *ring, const tr_model *model, int16_t *frames,
                                uint32_t hop) {
    if (!ring || !model || !model->blob || !frames) return TR_ERR_ARGUMENT;
    if (model->kind != TR_WINDOW) return TR_ERR_KIND;
    if (hop < 1 || hop > model->length) return TR_ERR_ARGUMENT;
    *ring = (tr_ring){frames, model->channels, model->length, hop, 0, model->length};
    return TR_OK;
}

TR_SMALL int tr_ring_push(tr_ring *ring, const int16_t *frame) {
    memcpy(ring->frames + ring->next * ring->channels, frame, 2 * (size_t)ring->channels);
    if (++ring->next == ring->length) ring->next = 0;
    if (--ring->until) return 0;
    ring->until = ring->hop;
    return 1;
}

TR_SMALL tr_status tr_ring_infer(tr_session *session, const tr_ring *ring, const float **logits) {
    if (!session || !session->model || !ring || !logits) return TR_ERR_ARGUMENT;
    const tr_model *model = session->model;
    if (model->kind != TR_WINDOW) return TR_ERR_KIND;
    if (ring->channels != model->channels || ring->length != model->length) return TR_ERR_ARGUMENT;
    const tr_program *program = (const tr_program *)(const void *)model->infer;
    tr_i16 *window = (tr_i16 *)(void *)(session->arena + 4 * program->input);
    uint32_t newest = ring->next * ring->channels, oldest = ring->length * ring->channels - newest;
    memcpy(window, ring->frames + newest, 2 * (size_t)oldest);
    memcpy(window + oldest, ring->frames, 2 * (size_t)newest);
    tr_program_run(session, program, model->infer_count);
    *logits = (const float *)(void *)(session->arena + 4 * program->logits);
    return TR_OK;
}

/* ---- logits ---- */

TR_SMALL uint32_t tr_classify(const float *logits, uint32_t outputs, float *probs) {
    uint32_t best = 0;
    for (uint32_t k = 1; k < outputs; ++k) {
        if (logits[k] > logits[best]) best = k;
    }
    if (!probs || !outputs) return best;
    float top = logits[best], sum = 0.0f;
    for (uint32_t k = 0; k < outputs; ++k) sum += probs[k] = tr_exp(logits[k] - top);
    float scale = 1.0f / sum;
    for (uint32_t k = 0; k < outputs; ++k) probs[k] *= scale;
    return best;
}
