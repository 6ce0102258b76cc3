/* tr.h - the ternio runtime: checks a blob, runs its programs, adapts it with LoRA.
 * C99, no allocation, no operating system: the caller owns the blob, the arena and the structs
 * below. The blob's format is specified in device/FORMAT.md; names and sections there are used
 * here. */
#ifndef TR_H
#define TR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cdef-begin */

typedef enum tr_status {
    TR_OK = 0,
    TR_ERR_ARGUMENT, /* a null pointer, a count that does not fit the model, a label out of range */
    TR_ERR_ALIGNMENT, /* blob, adapter or arena not 16-byte aligned */
    TR_ERR_TRUNCATED, /* fewer bytes than the header says, or than a header needs */
    TR_ERR_MAGIC,     /* not a ternio blob or adapter */
    TR_ERR_VERSION,   /* a format version this runtime does not read */
    TR_ERR_CHECKSUM,  /* CRC-32 wrong */
    TR_ERR_DIGEST,    /* SHA-256 wrong */
    TR_ERR_HEADER,    /* a header field is impossible */
    TR_ERR_SECTION,   /* the section table or a section is impossible or missing */
    TR_ERR_TENSOR,    /* a tensor entry or its data is impossible */
    TR_ERR_ADAPTER,   /* an adapter directory entry is impossible */
    TR_ERR_OPCODE,    /* unknown instruction, or one not allowed in this program */
    TR_ERR_OPERAND,   /* an instruction's dimensions or operands do not fit */
    TR_ERR_ARENA,     /* the arena handed in is smaller than the program needs */
    TR_ERR_NO_ADAPT,  /* the blob has no adapt program */
    TR_ERR_MISMATCH,  /* the adapter belongs to another blob */
    TR_ERR_STATE,   /* call out of order: adapt step before begin, export with nothing to export */
    TR_ERR_VALUE,   /* a number is not finite where it must be: factors, learning rate, loss */
    TR_ERR_KIND,    /* a window for a model of tokens, or a token for a model of windows */
    TR_ERR_CONTEXT, /* the stream has run its `length` tokens: reset it */
    TR_STATUS_COUNT
} tr_status;

/* One line of text for a status, without a full stop; never NULL. */
const char *tr_status_text(tr_status status);

typedef enum tr_kind { TR_WINDOW = 1, TR_TOKENS = 2 } tr_kind;

/* A checked blob. All pointers point into the blob, which must stay in place and unchanged. */
typedef struct tr_model {
    const uint8_t *blob;
    uint32_t blob_bytes;
    const char *name;          /* NUL-terminated, 1..31 bytes */
    const uint8_t *digest;     /* 32 bytes */
    tr_kind kind;              /* what goes in: tr_infer or tr_step */
    uint32_t channels, length; /* of the input window; tokens: 1, the context */
    uint32_t outputs;          /* number of logits; tokens: size of the vocabulary */
    float sample_rate_hz;      /* 0: unknown */
    const float *input_scale;  /* [channels], raw units per integer step; tokens: NULL */
    uint32_t tensor_count, adapter_count;
    uint32_t adapter_floats;           /* P, length of the factor vector; 0 without ADIR */
    uint32_t infer_count, adapt_count; /* instructions */
    uint32_t infer_arena, adapt_arena; /* bytes; adapt_arena is 0 without an adapt program */
    /* Work of one run of each program at its longest, in multiply-accumulates or what takes about
     * as long as a few; saturates. A stream's is that of one token. */
    uint64_t infer_work, adapt_work;
    const uint8_t *tensors, *adapters, *infer, *adapt, *data; /* sections (internal) */
    const uint8_t *labels;                                    /* or the vocabulary (internal) */
    uint32_t labels_bytes;
} tr_model;

/* Checks all of a blob of `bytes` bytes at `blob` (16-byte aligned) and fills `model`. After TR_OK
 * every program of the model stays inside the blob and inside an arena of the size that the model
 * names. What it costs in time is for the caller to judge: infer_work, adapt_work. Built with
 * TR_NO_ADAPT, the runtime has no adaptation: it passes over `adapt` programs. */
tr_status tr_model_open(tr_model *model, const void *blob, uint32_t bytes);

/* Label of class `index`, NUL-terminated UTF-8, or NULL when out of range or a model of tokens. */
const char *tr_model_label(const tr_model *model, uint32_t index);

enum { TR_ANY_OTHER = -1 }; /* a character or token that is none in particular */

/* Vocabulary of a model of tokens. tr_model_bytes: 1 when a token is a byte of UTF-8, 0 when it is
 * a character. tr_model_token: the token of a character's code point, or of a byte; TR_ANY_OTHER
 * when the vocabulary has none, not even one for the rest. tr_model_character: the code point or
 * byte of a token; TR_ANY_OTHER for the token of the rest, or one out of range. */
int tr_model_bytes(const tr_model *model);
int32_t tr_model_token(const tr_model *model, uint32_t character);
int32_t tr_model_character(const tr_model *model, uint32_t token);

typedef enum tr_optimizer { TR_ADAM = 0, TR_SGD = 1 } tr_optimizer;

typedef struct tr_adapt_config {
    tr_optimizer optimizer;
    float lr;           /* > 0 */
    float beta1, beta2; /* Adam, each in [0, 1) ; SGD: beta1 is the momentum */
    float eps;          /* Adam, > 0 */
    float weight_decay; /* decoupled, >= 0 */
    float clip;         /* global gradient norm; 0: no clipping */
    uint64_t seed;      /* of the fresh A factors */
} tr_adapt_config;

/* lr 5e-3, betas 0.9 / 0.999, eps 1e-8, no decay, no clipping, seed 0 */
tr_adapt_config tr_adapt_defaults(void);

/* A model at work in an arena. Fields are for reading only. */
typedef struct tr_session {
    const tr_model *model;
    uint8_t *arena; /* 16-byte aligned */
    uint32_t arena_bytes;
    const float *factors; /* attached or trained factors [P]; NULL: base model */
    int adapting;         /* 1 from tr_adapt_begin until attach or detach */
    tr_adapt_config config;
    uint32_t steps; /* adaptation steps done, counting those of the adapter it started from */
    float loss;     /* of the last step */
    float beta1_power, beta2_power; /* Adam's bias correction */
    uint32_t label;                 /* of the running step (internal) */
    uint32_t position;              /* tokens that the stream holds, 0 .. model->length */
    uint32_t token;                 /* of the running step (internal) */
} tr_session;

/* Binds a model to an arena of at least model->infer_arena bytes, 16-byte aligned. No adapter is
 * attached. */
tr_status tr_session_init(tr_session *session, const tr_model *model, void *arena,
                          uint32_t arena_bytes);

/* Runs `infer` on one window of `count` = channels * length int16. `*logits` points to [outputs]
 * floats in the arena, valid until the next call. `input` may be any address, in the arena as well.
 * Logits that are not finite (absurd weights or factors) are there too, with TR_ERR_VALUE. */
tr_status tr_infer(tr_session *session, const int16_t *input, uint32_t count, const float **logits);

/* Starts the stream of a model of tokens again, at position 0. So do attaching and detaching an
 * adapter, whose factors the keys and values of earlier tokens lack. */
void tr_stream_reset(tr_session *session);

/* Takes one token of the stream; `*logits` are those of the token that follows it. TR_ERR_CONTEXT,
 * and nothing done, when the context is full: then reset, and step again through the last
 * length / 2 tokens, as every ternio program does. */
tr_status tr_step(tr_session *session, uint32_t token, const float **logits);

/* How to choose a token. The same logits, settings and state choose the same token everywhere. */
typedef struct tr_sampler {
    float temperature; /* > 0; 0: always the token of the largest logit (the lowest on a tie) */
    uint32_t top_k;    /* keep the k most likely tokens; 0: all */
    float top_p;       /* then the fewest whose probabilities reach p; 1 or 0: all */
    uint64_t state;    /* of the random numbers: any seed; moves on by one draw a token */
} tr_sampler;

/* The chosen token of logits[outputs]. weights[outputs] is working memory. Where the last token is
 * TR_ANY_OTHER give one output less: nobody could read it. */
uint32_t tr_sample(tr_sampler *sampler, const float *logits, uint32_t outputs, uint32_t *weights);

/* The last `length` frames of a sensor, of which every `hop`th asks for an inference. */
typedef struct tr_ring {
    int16_t *frames; /* [length][channels], the caller's */
    uint32_t channels, length, hop;
    uint32_t next;  /* where the next frame goes: the oldest one's place */
    uint32_t until; /* frames until a window is due */
} tr_ring;

/* An empty ring over frames[length * channels] for a model of windows; 1 <= hop <= length. */
tr_status tr_ring_init(tr_ring *ring, const tr_model *model, int16_t *frames, uint32_t hop);

/* Takes a frame [channels]; 1 when a window is due: first when the ring is full, then every hop. */
int tr_ring_push(tr_ring *ring, const int16_t *frame);

/* tr_infer over the frames of the ring, oldest first. */
tr_status tr_ring_infer(tr_session *session, const tr_ring *ring, const float **logits);

/* Softmax of logits[outputs] into probs[outputs] (may be the same), and the index of the largest
 * logit (the lowest index on a tie). probs may be NULL. */
uint32_t tr_classify(const float *logits, uint32_t outputs, float *probs);

/* Attaches an adapter file in place (16-byte aligned; must stay there). Ends a running adaptation.
 */
tr_status tr_adapter_attach(tr_session *session, const void *file, uint32_t bytes);

/* Checks an adapter file against a model without attaching it. */
tr_status tr_adapter_check(const tr_model *model, const void *file, uint32_t bytes);

/* Back to the base model; ends a running adaptation and forgets what was not exported. */
void tr_adapter_detach(tr_session *session);

/* Bytes of an adapter file for this model: 64 + 4 * P. */
uint32_t tr_adapter_bytes(const tr_model *model);

/* Writes the current factors, attached or in training, as an adapter file into out[capacity]. */
tr_status tr_adapter_export(const tr_session *session, void *out, uint32_t capacity,
                            uint32_t *bytes);

/* Starts adaptation: from the attached adapter's factors, else from fresh ones. Needs an arena of
 * model->adapt_arena bytes. tr_infer may be called between steps and uses the factors in training.
 */
tr_status tr_adapt_begin(tr_session *session, const tr_adapt_config *config);

/* One training example: forward, backward, optimiser step. `label` < outputs. *loss (may be NULL):
 * cross-entropy in nats before the step. A loss or gradient that is not finite leaves the factors
 * as they were and returns TR_ERR_VALUE. */
tr_status tr_adapt_step(tr_session *session, const int16_t *input, uint32_t count, uint32_t label,
                        float *loss);

/* Changes the learning rate between steps. */
tr_status tr_adapt_set_lr(tr_session *session, float lr);

/* CRC-32 (IEEE), continuing from `crc` (0 to start), and SHA-256 of `bytes` bytes. */
uint32_t tr_crc32(uint32_t crc, const void *data, uint32_t bytes);
void tr_sha256(const void *data, uint32_t bytes, uint8_t digest[32]);

/* cdef-end */

#ifdef __cplusplus
}
#endif

#endif
