/* window.c - see window.h. */
#include "model/window.h"

#include "errors.h"
#include "model/model.h"

static uint32_t filled;
static tr_ring ring;
static bool in_frames; /* the ring is in use */

static int16_t *window(void) {
    return model_input();
}

static int usable(void) {
    if (!model_current()) return ERR_NO_MODEL;
    return model_current()->kind == TR_WINDOW ? 0 : TR_ERR_KIND;
}

uint32_t window_filled(void) {
    return filled;
}
uint32_t window_length(void) {
    return usable() ? 0 : model_current()->channels * model_current()->length;
}

void window_forget(void) {
    filled = 0;
    in_frames = false;
}

int window_write(uint32_t first, const uint8_t *little_endian, uint32_t count, bool narrow) {
    int code = usable();
    if (code) return code;
    if (first > window_length() || count > window_length() - first) return ERR_REQUEST;
    if (first && in_frames) window_straighten();
    in_frames = false;
    if (first > filled) return ERR_WINDOW;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t low = narrow ? 0 : little_endian[2 * i];
        uint32_t high = narrow ? little_endian[i] : little_endian[2 * i + 1];
        window()[first + i] = (int16_t)(uint16_t)(low | high << 8);
    }
    if (first == 0 || first + count > filled) filled = first + count;
    return 0;
}

/* ---- frames ---- */

int window_every(uint32_t hop) {
    int code = usable();
    if (!code) code = (int)tr_ring_init(&ring, model_current(), window(), hop);
    if (code) return code;
    filled = 0;
    in_frames = true;
    return 0;
}

int window_frame(const int16_t *frame, bool *due) {
    int code = in_frames ? 0 : usable();
    if (!code && !in_frames) code = window_every(model_current()->length);
    if (code) return code;
    *due = tr_ring_push(&ring, frame);
    if (filled < window_length()) filled += ring.channels;
    return 0;
}

static void reverse(int16_t *from, int16_t *to) {
    for (; from + 1 < to; from++) {
        int16_t kept = *from;
        *from = *--to;
        *to = kept;
    }
}

/* A rotation by three reversals. A ring that is not full starts at 0 anyway. */
void window_straighten(void) {
    uint32_t total = window_length(), newest = in_frames ? ring.next * ring.channels : 0;
    if (!newest || filled < total) return;
    reverse(window(), window() + newest);
    reverse(window() + newest, window() + total);
    reverse(window(), window() + total);
    ring.next = 0;
}
