/* parity.c - prints checksums of everything that must be the same on every core: elementary
 * functions, logits, and an adapter after training. Compiled for the host and for each board; the
 * test compares the lines. */
#include <stdio.h>
#include <string.h>

#include "../../../device/src/tr_internal.h"
#include "../../../device/src/tr_math.h"

enum { WINDOWS = 6, STEPS = 24, ARENA_BYTES = 11264 };

void board_print(const char *text);

extern const uint8_t parity_blob[], parity_blob_end[];
extern const int16_t parity_windows[];

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

static uint32_t infer_all(tr_session *session) {
    uint32_t count = session->model->channels * session->model->length, crc = 0;
    for (unsigned k = 0; k < WINDOWS; ++k) {
        const float *logits = NULL;
        if (tr_infer(session, parity_windows + k * count, count, &logits)) return 0;
        crc = tr_crc32(crc, logits, 4 * session->model->outputs);
    }
    return crc;
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
    static uint64_t arena[ARENA_BYTES / 8 + 1];
    tr_model model;
    tr_session session;
    void *start = (uint8_t *)arena + (16 - (uintptr_t)arena % 16) % 16;
    functions();
    report("open", tr_model_open(&model, parity_blob, (uint32_t)(parity_blob_end - parity_blob)));
    report("init", tr_session_init(&session, &model, start, ARENA_BYTES - 8));
    report("logits", infer_all(&session));
    tr_adapt_config config = tr_adapt_defaults();
    config.lr = 0.01f;
    adapt(&session, config);
    config.optimizer = TR_SGD;
    config.clip = 0.5f;
    config.weight_decay = 0.01f;
    config.seed = 7;
    adapt(&session, config);
    return 0;
}
