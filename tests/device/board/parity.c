/* parity.c - prints checksums of everything that must be the same on every core: elementary
 * functions, logits, an adapter after training, and texts. Compiled for the host and for each
 * board; the test compares the lines. */
#include <stdio.h>
#include <string.h>

#include "../../../device/src/tr_internal.h"
#include "../../../device/src/tr_math.h"

enum { WINDOWS = 6, STEPS = 24, MOTION_WINDOWS = 2, ARENA_BYTES = 90112, OUTPUTS = 96 };

void board_print(const char *text);

#define BLOB(name)    parity_##name, (uint32_t)(parity_##name##_end - parity_##name)
#define DECLARE(name) extern const uint8_t parity_##name[], parity_##name##_end[]
DECLARE(blob);
DECLARE(floats);
DECLARE(rows);
DECLARE(odd);
DECLARE(stream);
DECLARE(text);
extern const int16_t parity_windows[], parity_motion[];

static uint64_t arena[ARENA_BYTES / 8 + 2];

static void *arena_start(void) {
    return (uint8_t *)arena + (16 - (uintptr_t)arena % 16) % 16;
}

static void report(const char *what, uint32_t checksum) {
    char line[32] = "", *p = line;
    memcpy(p, what, strlen(what));
    p += strlen(what);
    *p++ = ' ';
    for (int shift = 28; shift >= 0; shift -= 4) *p++ = "0123456789abcdef"[checksum >> shift & 15];
    *p = '\n';
    board_print(line);
}

static uint32_t add(uint32_t crc, float x) {
    return x == x ? tr_crc32(crc, &x, sizeof x) : crc;
}

/* All exponents, both signs, subnormals and infinities too. */
static void functions(void) {
    uint32_t exp = 0, log = 0, tanh = 0, turn = 0, root = 0;
    for (uint32_t bits = 1; bits <= 0x7F800000u; bits += 0x0001C9F3u) {
        for (unsigned sign = 0; sign < 2; ++sign) {
            float x = tr_from_bits(bits | sign << 31), s, c;
            tr_sincos(x, &s, &c);
            exp = add(exp, tr_exp(x));
            log = add(log, tr_log(x));
            tanh = add(tanh, tr_tanh(x));
            turn = add(add(turn, s), c);
            root = add(root, tr_sqrt(x));
        }
    }
    report("exp", exp);
    report("log", log);
    report("tanh", tanh);
    report("sincos", turn);
    report("sqrt", root);
}

static uint32_t infer_windows(tr_session *session, const int16_t *windows, uint32_t windows_count) {
    uint32_t count = session->model->channels * session->model->length, crc = 0;
    for (unsigned k = 0; k < windows_count; ++k) {
        const float *logits = NULL;
        if (tr_infer(session, windows + k * count, count, &logits)) return 0;
        crc = tr_crc32(crc, logits, 4 * session->model->outputs);
    }
    return crc;
}

static uint32_t infer_all(tr_session *session) {
    return infer_windows(session, parity_windows, WINDOWS);
}

static uint32_t start(tr_session *session, tr_model *model, const uint8_t *blob, uint32_t bytes) {
    uint32_t status = tr_model_open(model, blob, bytes);
    return status | tr_session_init(session, model, arena_start(), ARENA_BYTES);
}

/* A model of windows: `motion`, its rows in floats or in integers, and odd ones. */
static void infer_motion(const char *what, const uint8_t *blob, uint32_t bytes) {
    tr_model model;
    tr_session session;
    report("open", start(&session, &model, blob, bytes));
    report(what, infer_windows(&session, parity_motion, MOTION_WINDOWS));
}

/* So many tokens, from one token on; a full context goes on from its last half. */
static void generate(const char *what, const uint8_t *blob, uint32_t bytes, uint32_t count) {
    static uint16_t tokens[256];
    static uint32_t weights[OUTPUTS];
    tr_model model;
    tr_session session;
    tr_sampler sampler = {0.9f, 12, 0.95f, 5};
    uint32_t status = start(&session, &model, blob, bytes), logits_crc = 0;
    for (uint32_t k = 0; k < count; ++k) {
        const float *logits = NULL;
        if (session.position == model.length) {
            tr_stream_reset(&session);
            for (uint32_t n = k - model.length / 2; n < k; ++n)
                status |= tr_step(&session, tokens[n], &logits);
        }
        status |= tr_step(&session, tokens[k], &logits);
        if (status) break;
        logits_crc = tr_crc32(logits_crc, logits, 4 * model.outputs);
        tokens[k + 1] = (uint16_t)tr_sample(&sampler, logits, model.outputs, weights);
    }
    report("status", status);
    report(what, tr_crc32(0, tokens, 2 * count));
    report("logits", logits_crc);
}

/* Trains with one optimiser from fresh factors; the logits afterwards and the adapter file. */
static void adapt(tr_session *session, tr_adapt_config config) {
    static uint8_t file[4096];
    uint32_t count = session->model->channels * session->model->length, used = 0, status = 0;
    tr_adapter_detach(session);
    status |= tr_adapt_begin(session, &config);
    for (unsigned k = 0; k < STEPS; ++k) {
        const int16_t *window = parity_windows + k % WINDOWS * count;
        status |= tr_adapt_step(session, window, count, k % session->model->outputs, NULL);
    }
    status |= tr_adapter_export(session, file, sizeof file, &used);
    report("status", status);
    report("adapter", tr_crc32(0, file, used));
    report("logits", infer_all(session));
}

int main(void) {
    tr_model model;
    tr_session session;
    functions();
    report("open", start(&session, &model, BLOB(blob)));
    report("logits", infer_all(&session));
    tr_adapt_config config = tr_adapt_defaults();
    config.lr = 0.01f;
    adapt(&session, config);
    config.optimizer = TR_SGD;
    config.clip = 0.5f;
    config.weight_decay = 0.01f;
    config.seed = 7;
    adapt(&session, config);
    infer_motion("floats", BLOB(floats));
    infer_motion("rows", BLOB(rows));
    infer_motion("odd", BLOB(odd));
    generate("stream", BLOB(stream), 200);
    generate("text", BLOB(text), 40);
    return 0;
}
