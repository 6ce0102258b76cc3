/* model.c - see model.h. */
#include "model/model.h"

#include <string.h>

#include "board_config.h"
#include "errors.h"
#include "model/stream.h"
#include "model/window.h"
#include "port.h"
#include "telemetry.h"
#include "text.h"

/* Programs own the front; the input lies at the end, so that one larger than BOARD_WINDOW_BYTES
 * takes from the arena. The input is a window of int16 or, of a stream, the tokens of its context
 * and what sampling works in. */
#define MEMORY_BYTES (BOARD_ARENA_BYTES + BOARD_WINDOW_BYTES)

static _Alignas(16) uint8_t memory[MEMORY_BYTES];

static tr_model model;
static tr_session session;
static bool ready;
static const char *slot_name = "none";
static const char *reason = "no model in any slot";
static struct slot_content
    adapter; /* of the stored adapter in use; data is NULL when there is none */
static struct model_counters counters;

/* ---- opening ---- */

static uint64_t input_bytes(const tr_model *of) {
    uint64_t bytes = (uint64_t)of->channels * of->length * 2;
    if (of->kind == TR_TOKENS) bytes = ((bytes + 3) & ~(uint64_t)3) + 4u * of->outputs;
    return (bytes + 15) & ~(uint64_t)15;
}

/* Arena left for programs beside the input of a model; 0 when the input alone is too large. */
static uint32_t arena_beside(const tr_model *of) {
    uint64_t input = input_bytes(of);
    uint32_t rest = input < MEMORY_BYTES ? MEMORY_BYTES - (uint32_t)input : 0;
    return rest < BOARD_ARENA_BYTES ? rest : BOARD_ARENA_BYTES;
}

static int check(tr_model *opened, const uint8_t *data, uint32_t bytes) {
    tr_status status = tr_model_open(opened, data, bytes);
    if (status) return (int)status;
    if (opened->infer_work > BOARD_WORK_LIMIT) return ERR_WORK;
    return opened->infer_arena <= arena_beside(opened) ? 0 : ERR_ARENA;
}

static void use_adapter(const struct slot_content *stored) {
    adapter = *stored;
    slots_protect(SLOT_ADAPTER, stored->slot);
}

static void forget_adapter(void) {
    adapter = (struct slot_content){.slot = -1};
    slots_protect(SLOT_ADAPTER, -1);
}

/* Attaches the newest stored adapter that belongs to the model; others are passed over. */
static void attach_stored(void) {
    struct slot_content stored;
    forget_adapter();
    for (uint64_t below = (uint64_t)UINT32_MAX + 1; slots_newest(SLOT_ADAPTER, below, &stored);
         below = stored.sequence)
        if (tr_adapter_attach(&session, stored.data, stored.bytes) == TR_OK) {
            use_adapter(&stored);
            return;
        }
}

static void use_model(const tr_model *opened, const struct slot_content *content) {
    model = *opened;
    slot_name = content->name;
    slots_protect(SLOT_MODEL, content->slot);
    ready = tr_session_init(&session, &model, memory, arena_beside(&model)) == TR_OK;
    reason = ready ? "" : "session refused";
    attach_stored();
    window_forget();
    stream_forget();
}

void model_start(void) {
    struct slot_content content;
    slots_protect(SLOT_MODEL, -1);
    forget_adapter();
    for (uint64_t below = (uint64_t)UINT32_MAX + 1; slots_newest(SLOT_MODEL, below, &content);
         below = content.sequence) {
        tr_model opened;
        int code = check(&opened, content.data, content.bytes);
        if (!code) {
            use_model(&opened, &content);
            return;
        }
        reason = error_text(code);
    }
}

/* ---- state ---- */

const tr_model *model_current(void) {
    return ready ? &model : NULL;
}
tr_session *model_session(void) {
    return ready ? &session : NULL;
}
void *model_input(void) {
    return memory + MEMORY_BYTES - input_bytes(&model);
}
const char *model_reason(void) {
    return ready ? "" : reason;
}
const char *model_slot(void) {
    return ready ? slot_name : "none";
}
struct model_counters model_counters(void) {
    return counters;
}

uint32_t model_arena_bytes(void) {
    return ready ? arena_beside(&model) : BOARD_ARENA_BYTES;
}

const char *model_adapter_state(void) {
    if (!ready || !session.factors) return "none";
    return session.adapting ? "training" : "attached";
}

uint32_t model_adapter_steps(void) {
    return ready && session.factors ? session.steps : 0;
}

int32_t model_find_label(const char *word) {
    int32_t index;
    if (!ready || model.kind != TR_WINDOW) return -1;
    for (uint32_t i = 0; i < model.outputs; i++)
        if (!strcmp(tr_model_label(&model, i), word)) return (int32_t)i;
    return text_parse(word, 0, (int32_t)model.outputs - 1, &index) ? index : -1;
}

/* ---- work ---- */

static int window_ready(void) {
    if (!ready) return ERR_NO_MODEL;
    if (model.kind != TR_WINDOW) return TR_ERR_KIND;
    if (window_filled() < window_length()) return ERR_WINDOW;
    window_straighten();
    return 0;
}

/* Probability of the class `index` among logits, without a buffer for all of them. */
static float probability_of(const float *logits, uint32_t index) {
    float pair[2], sum = 0.0f;
    for (uint32_t i = 0; i < model.outputs; i++) {
        if (i == index) continue;
        pair[0] = logits[index];
        pair[1] = logits[i];
        tr_classify(pair, 2, pair);
        sum += pair[1] / pair[0]; /* exp(logit i - logit index) */
    }
    return 1.0f / (1.0f + sum);
}

int model_infer(struct infer_result *result) {
    int code = window_ready();
    if (code) return code;
    uint32_t start = port_micros();
    code = (int)tr_infer(&session, model_input(), window_length(), &result->logits);
    if (code) return code;
    result->us = port_micros() - start;
    result->index = tr_classify(result->logits, model.outputs, NULL);
    result->probability = probability_of(result->logits, result->index);
    counters.infers++;
    telemetry_infer(tr_model_label(&model, result->index), result);
    return 0;
}

int model_adapt_begin(const tr_adapt_config *config) {
    if (!ready) return ERR_NO_MODEL;
    if (model.adapt_arena > session.arena_bytes) return ERR_ARENA;
    if (model.adapt_work > BOARD_WORK_LIMIT) return ERR_WORK;
    return (int)tr_adapt_begin(&session, config);
}

int model_adapt_step(uint32_t label, float lr, struct step_result *result) {
    int code = window_ready();
    if (!code && !session.adapting) {
        tr_adapt_config defaults = tr_adapt_defaults();
        code = model_adapt_begin(&defaults);
    }
    if (!code && lr != 0.0f) code = (int)tr_adapt_set_lr(&session, lr);
    if (code) return code;
    uint32_t start = port_micros();
    code = (int)tr_adapt_step(&session, model_input(), window_length(), label, &result->loss);
    if (code) return code;
    result->us = port_micros() - start;
    result->step = session.steps;
    counters.steps++;
    telemetry_step(tr_model_label(&model, label), result);
    return 0;
}

/* ---- adapter ---- */

/* The arena below the factors in training is free between two steps: the file is exported there. */
int model_adapter_file(const uint8_t **data, uint32_t *bytes) {
    if (!ready) return ERR_NO_MODEL;
    if (!session.factors) return ERR_NO_ADAPTER;
    *data = adapter.data;
    *bytes = adapter.bytes;
    if (!session.adapting) return 0;
    uint32_t free_bytes = (uint32_t)((const uint8_t *)session.factors - memory);
    *data = memory;
    tr_status status = tr_adapter_export(&session, memory, free_bytes, bytes);
    return (int)status;
}

static int store(enum slot_kind kind, const uint8_t *data, uint32_t bytes) {
    int code = model_accepts(kind, bytes);
    if (code) return code;
    return slots_begin(kind, bytes) && slots_write(kind, data, bytes) ? 0 : ERR_STORAGE;
}

int model_adapter_save(struct slot_content *stored) {
    const uint8_t *data;
    uint32_t bytes;
    int code = model_adapter_file(&data, &bytes);
    if (!code && session.adapting) {
        code = store(SLOT_ADAPTER, data, bytes);
        if (!code) code = model_install(SLOT_ADAPTER);
    }
    *stored = adapter;
    return code;
}

int model_adapter_reset(void) {
    if (!ready) return ERR_NO_MODEL;
    tr_adapter_detach(&session);
    forget_adapter();
    return slots_discard(SLOT_ADAPTER) ? 0 : ERR_STORAGE;
}

/* ---- updates ---- */

int model_accepts(enum slot_kind kind, uint32_t bytes) {
    if (kind == SLOT_ADAPTER && !ready) return ERR_NO_MODEL;
    if (!slots_capacity(kind)) return ERR_STORAGE;
    return bytes <= slots_capacity(kind) ? 0 : ERR_TOO_LARGE;
}

static int install_adapter(uint32_t bytes) {
    if (!ready) return ERR_NO_MODEL;
    int code = (int)tr_adapter_check(&model, slots_pending_data(SLOT_ADAPTER), bytes);
    struct slot_content content;
    if (code) return code;
    if (!slots_commit(SLOT_ADAPTER, &content)) return ERR_STORAGE;
    code = (int)tr_adapter_attach(&session, content.data, content.bytes);
    if (!code) use_adapter(&content);
    return code;
}

static int install_model(uint32_t bytes) {
    tr_model opened;
    struct slot_content content;
    int code = check(&opened, slots_pending_data(SLOT_MODEL), bytes);
    if (code) return code;
    if (!slots_commit(SLOT_MODEL, &content)) return ERR_STORAGE;
    use_model(&opened, &content);
    telemetry_model(&model, slot_name);
    return 0;
}

int model_install(enum slot_kind kind) {
    uint32_t offset, bytes;
    if (!slots_pending(kind, &offset, &bytes) || offset != bytes) return ERR_STORAGE;
    int code = kind == SLOT_MODEL ? install_model(bytes) : install_adapter(bytes);
    if (code) slots_abandon(kind);
    return code;
}
