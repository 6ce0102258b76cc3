/* runtime_bench.c - counts what a model costs on a core: opening, one inference, one adaptation
 * step. bench_runtime.py builds it with a blob and reads the counts. */
#include "guest.h"
#include "tr.h"

extern const uint8_t bench_blob[], bench_blob_end[];

enum { ARENA_BYTES = 96 << 10, WINDOW = 4096 };

static uint8_t arena[ARENA_BYTES] __attribute__((aligned(16)));
static int16_t window[WINDOW];

int main(void) {
    tr_model model;
    tr_session session;
    const float *logits;
    tr_adapt_config config = tr_adapt_defaults();
    int failed = 0;
    MARK_BEGIN();
    failed |= tr_model_open(&model, bench_blob, (uint32_t)(bench_blob_end - bench_blob)) != TR_OK;
    MARK_END();
    uint32_t count = model.channels * model.length;
    if (failed || count > WINDOW) return 1;
    for (uint32_t k = 0; k < count; ++k) window[k] = (int16_t)(k * 7919 % 6000) - 3000;
    failed |= tr_session_init(&session, &model, arena, sizeof arena) != TR_OK;
    MARK_BEGIN();
    failed |= tr_infer(&session, window, count, &logits) != TR_OK;
    MARK_END();
    failed |= tr_adapt_begin(&session, &config) != TR_OK;
    MARK_BEGIN();
    failed |= tr_infer(&session, window, count, &logits) != TR_OK;
    MARK_END();
    MARK_BEGIN();
    failed |= tr_adapt_step(&session, window, count, 0, 0) != TR_OK;
    MARK_END();
    return failed;
}
