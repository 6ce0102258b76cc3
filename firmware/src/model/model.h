/* model.h - the model service: owns the runtime's model, session and arena, the memory of
 * its input (window.h, stream.h), and what the slots mean. Console and link both act through it.
 * Codes are those of errors.h; 0 is success. */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/slots.h"
#include "tr.h"

struct model_counters {
    uint32_t infers, steps;
};

struct infer_result {
    const float *logits; /* [outputs], valid until the next call into the service */
    uint32_t index;
    float probability;
    uint32_t us;
};

struct step_result {
    float loss;
    uint32_t step, us;
};

/* Opens the newest model that verifies and attaches its newest adapter. */
void model_start(void);

/* The model in use and its session, or NULL. */
const tr_model *model_current(void);
tr_session *model_session(void);

/* Memory of the input of the model in use, 16-byte aligned: int16 [channels * length]; of a stream
 * its tokens, uint16 [length], and from the next multiple of 4 on uint32 [outputs] for sampling. */
void *model_input(void);

/* Why there is no model; "" when there is one. */
const char *model_reason(void);

/* Slot of the model: "A", "B", "builtin" or "none". */
const char *model_slot(void);

/* "none", "attached" or "training", and the steps behind those factors. */
const char *model_adapter_state(void);
uint32_t model_adapter_steps(void);

struct model_counters model_counters(void);

/* Bytes of arena that programs may use. */
uint32_t model_arena_bytes(void);

/* Runs the window. */
int model_infer(struct infer_result *result);
int model_adapt_begin(const tr_adapt_config *config);

/* One step on the window; begins with defaults when no adaptation runs. lr 0 keeps the rate. */
int model_adapt_step(uint32_t label, float lr, struct step_result *result);

/* Index of a class given by label or number; -1 when there is none. */
int32_t model_find_label(const char *word);

/* Stores the trained factors and attaches them. */
int model_adapter_save(struct slot_content *stored);

/* Drops the factors in use and the stored ones. */
int model_adapter_reset(void);

/* The adapter file as it would be stored: from the slot, or exported now from a running adaptation
 * (then valid until the next call into the service). */
int model_adapter_file(const uint8_t **data, uint32_t *bytes);

/* Whether an upload of `bytes` to a slot of `kind` can end well. */
int model_accepts(enum slot_kind kind, uint32_t bytes);

/* Verifies a completely written file, makes it current and uses it; on an error the old one stays
 * in use. */
int model_install(enum slot_kind kind);

#endif
