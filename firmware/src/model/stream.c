/* stream.c - see stream.h. */
#include "model/stream.h"

#include <string.h>

#include "errors.h"
#include "model/model.h"
#include "port.h"

#define NO_TOKEN    UINT32_MAX
#define REPLACEMENT 0xFFFDu

tr_sampler stream_sampler;
static const float *logits; /* of the token after those in the stream; NULL: none yet */
static uint32_t last;       /* chosen, but not in the stream yet, or NO_TOKEN */

static int usable(void) {
    if (!model_current()) return ERR_NO_MODEL;
    return model_current()->kind == TR_TOKENS ? 0 : TR_ERR_KIND;
}

/* The tokens that the stream holds. */
static uint16_t *history(void) {
    return model_input();
}

void stream_forget(void) {
    logits = NULL;
    last = NO_TOKEN;
    stream_sampler = (tr_sampler){0};
}

/* ---- taking tokens ---- */

static int push(uint32_t token) {
    uint32_t place = model_session()->position;
    port_watchdog_feed();
    int code = (int)tr_step(model_session(), token, &logits);
    if (!code) history()[place] = (uint16_t)token;
    return code;
}

/* Starts again with the last half of the context. */
static int slide(void) {
    uint32_t length = model_current()->length, kept = length / 2;
    int code = 0;
    memmove(history(), history() + length - kept, kept * sizeof *history());
    tr_stream_reset(model_session());
    for (uint32_t i = 0; i < kept && !code; i++) code = push(history()[i]);
    return code;
}

static int take(uint32_t token) {
    int code = model_session()->position < model_current()->length ? 0 : slide();
    return code ? code : push(token);
}

static int take_last(void) {
    int code = last == NO_TOKEN ? 0 : take(last);
    last = NO_TOKEN;
    return code;
}

/* Token of the next character, TR_ANY_OTHER when it is unknown. */
static int32_t next_token(const char **text, const char *end) {
    bool bytes = tr_model_bytes(model_current());
    return tr_model_token(model_current(), bytes ? (uint8_t) * (*text)++ : text_code(text, end));
}

int stream_prompt(const char *text, size_t bytes, bool anew) {
    const char *end = text + bytes;
    int code = usable();
    if (code) return code;
    for (const char *at = text; at < end;)
        if (next_token(&at, end) == TR_ANY_OTHER) return ERR_CHARACTER;
    if (anew) {
        tr_stream_reset(model_session());
        stream_forget();
    }
    code = take_last();
    while (text < end && !code) code = take((uint32_t)next_token(&text, end));
    return code;
}

/* ---- giving tokens ---- */

bool stream_begun(void) {
    return logits != NULL;
}

/* Tokens to choose among: not the last one where it stands for any other character, as nobody could
 * read it. */
static uint32_t choices(void) {
    uint32_t outputs = model_current()->outputs;
    return outputs - (tr_model_character(model_current(), outputs - 1) == TR_ANY_OTHER);
}

int stream_next(uint32_t *token) {
    int code = usable();
    if (code) return code;
    if (!logits) return ERR_WINDOW;
    code = take_last();
    if (code) return code;
    uint32_t *weights = (uint32_t *)(void *)(history() + ((model_current()->length + 1) & ~1u));
    last = *token = tr_sample(&stream_sampler, logits, choices(), weights);
    return 0;
}

void stream_write(struct text *text, uint32_t token) {
    int32_t character = tr_model_character(model_current(), token);
    if (tr_model_bytes(model_current()))
        text_char(text, (char)character);
    else
        text_utf8(text, character == TR_ANY_OTHER ? REPLACEMENT : (uint32_t)character);
}
