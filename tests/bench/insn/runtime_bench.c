/* runtime_bench.c - counts what a model costs on a core. Of windows: opening, one inference, one
 * with an adapter, one adaptation step (the last two where the blob can); of tokens: opening, all
 * tokens of a context but the last, the last. bench_runtime.py builds it with a blob, BENCH_ARENA
 * and BENCH_INPUT, the numbers of an input, and reads the counts. */
#include "guest.h"
#include "tr.h"

extern const uint8_t bench_blob[], bench_blob_end[];

static uint8_t arena[BENCH_ARENA] __attribute__((aligned(16)));
static int16_t window[BENCH_INPUT];
static tr_model model;
static tr_session session;

static int bench_windows(void) {
    const float *logits;
    uint32_t count = model.channels * model.length;
    tr_adapt_config config = tr_adapt_defaults();
    if (count > BENCH_INPUT) return 1;
    for (uint32_t k = 0; k < count; ++k) window[k] = (int16_t)(k * 7919 % 6000) - 3000;
    MARK_BEGIN();
    int failed = tr_infer(&session, window, count, &logits) != TR_OK;
    MARK_END();
    if (failed || !model.adapt) return failed;
    failed |= tr_adapt_begin(&session, &config) != TR_OK;
    MARK_BEGIN();
    failed |= tr_infer(&session, window, count, &logits) != TR_OK;
    MARK_END();
    MARK_BEGIN();
    failed |= tr_adapt_step(&session, window, count, 0, 0) != TR_OK;
    MARK_END();
    return failed;
}

static int bench_tokens(void) {
    const float *logits;
    int failed = 0;
    MARK_BEGIN();
    for (uint32_t k = 1; k < model.length; ++k)
        failed |= tr_step(&session, k % model.outputs, &logits) != TR_OK;
    MARK_END();
    MARK_BEGIN();
    failed |= tr_step(&session, 0, &logits) != TR_OK;
    MARK_END();
    return failed;
}

int main(void) {
    MARK_BEGIN();
    int failed =
        tr_model_open(&model, bench_blob, (uint32_t)(bench_blob_end - bench_blob)) != TR_OK;
    MARK_END();
    if (failed || tr_session_init(&session, &model, arena, sizeof arena) != TR_OK) return 1;
    return model.kind == TR_TOKENS ? bench_tokens() : bench_windows();
}
