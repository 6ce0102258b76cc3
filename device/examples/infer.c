/* infer.c - runs a blob on the host, as a board would: prints its labels with their probabilities
 * for one window of raw little-endian int16 samples.
 *
 *   cc -Iinclude examples/infer.c src/tr_*.c src/kernels/tr_*.c -o infer && ./infer model.tern
 * window.bin */
#include <stdio.h>
#include <stdlib.h>

#include "tr.h"

/* A whole file in memory aligned to 16 bytes, as malloc gives it on 64-bit hosts. */
static void *load(const char *path, uint32_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END)) return NULL;
    *bytes = (uint32_t)ftell(file);
    rewind(file);
    void *data = malloc(*bytes);
    if (data && fread(data, 1, *bytes, file) != *bytes) *bytes = 0;
    fclose(file);
    return data;
}

int main(int argc, char **argv) {
    uint32_t blob_bytes = 0, window_bytes = 0;
    void *blob = argc == 3 ? load(argv[1], &blob_bytes) : NULL;
    const int16_t *window = argc == 3 ? load(argv[2], &window_bytes) : NULL;
    tr_model model;
    tr_session session;
    const float *logits = NULL;
    tr_status status = tr_model_open(&model, blob, blob_bytes);
    if (!status)
        status = tr_session_init(&session, &model, malloc(model.infer_arena), model.infer_arena);
    if (!status) status = tr_infer(&session, window, window_bytes / 2, &logits);
    if (status) {
        fprintf(stderr, "%s\n", tr_status_text(status));
        return 1;
    }
    float *probabilities = malloc(model.outputs * sizeof *probabilities);
    uint32_t best = tr_classify(logits, model.outputs, probabilities);
    for (uint32_t k = 0; k < model.outputs; ++k) {
        printf("%c %-16s %.3f\n", k == best ? '>' : ' ', tr_model_label(&model, k),
               probabilities[k]);
    }
    return 0;
}
