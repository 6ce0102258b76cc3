/* main.c - a model in a C array, without our firmware: the same source on a host and on a board.
 * include/motion.h is what `ternio pack motion.ckpt --c-array include/motion.h` writes. */
#include <stdio.h>

#include "motion.h"
#include "tr.h"

TERNIO_ALIGNED static uint8_t arena[MOTION_INFER_ARENA];

enum { COUNT = MOTION_LENGTH * MOTION_CHANNELS };
static int16_t window[COUNT]; /* samples x channels, in steps of model.input_scale */

static int16_t read_sensor(uint32_t i) {
    return (int16_t)(i * 7919u % 8000u) - 4000; /* here a board asks its sensor */
}

int main(void) {
    static tr_model model;
    static tr_session session;
    const float *logits = NULL;
    tr_status status = tr_model_open(&model, motion_blob, motion_blob_bytes);
    if (!status) status = tr_session_init(&session, &model, arena, sizeof arena);
    for (uint32_t i = 0; i < COUNT; i++) window[i] = read_sensor(i);
    if (!status) status = tr_infer(&session, window, COUNT, &logits);
    if (status) {
        puts(tr_status_text(status));
        return 1;
    }
    for (uint32_t k = 0; k < model.outputs; k++)
        printf("%s %d/1000\n", tr_model_label(&model, k), (int)(1000.0f * logits[k]));
    printf("class %s\n", tr_model_label(&model, tr_classify(logits, model.outputs, NULL)));
    return 0;
}
