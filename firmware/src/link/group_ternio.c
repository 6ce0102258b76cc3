/* group_ternio.c - SMP group 64: inference, adaptation and streams (PROTOCOL.md). */
#include <string.h>

#include "board_config.h"
#include "errors.h"
#include "link/smp.h"
#include "model/model.h"
#include "model/stream.h"
#include "model/window.h"
#include "port.h"
#include "telemetry.h"
#include "version.h"

/* Room that the answer must keep for what follows the labels. */
#define LABELS_MARGIN 8u

/* ---- the window in a request ---- */

struct window_part {
    struct zcbor_string bytes;
    uint32_t offset, format;
};

/* Puts a request's part into the window buffer. Sets `next` to the byte expected next while the
 * window is incomplete, and to 0 when it is complete. */
static int take_window(const struct window_part *part, bool given, uint32_t *next) {
    uint32_t width = part->format == 1 ? 1 : 2;
    int code = 0;
    if (!model_current()) return ERR_NO_MODEL;
    if (model_current()->kind != TR_WINDOW) return TR_ERR_KIND;
    if (part->format > 1) return ERR_REQUEST;
    if (given) {
        if (part->offset % width || part->bytes.len % width) return ERR_REQUEST;
        code = window_write(part->offset / width, part->bytes.value,
                            (uint32_t)part->bytes.len / width, width == 1);
        if (code == ERR_WINDOW) code = 0; /* a gap: the answer tells where to go on */
    } else if (window_filled() < window_length()) {
        code = ERR_WINDOW;
    }
    *next = window_filled() < window_length() ? window_filled() * width : 0;
    return code;
}

#define WINDOW_FIELDS(part)                                                                        \
    {"x", FIELD_BYTES, &(part).bytes, false}, {"off", FIELD_U32, &(part).offset, false}, {         \
        "fmt", FIELD_U32, &(part).format, false                                                    \
    }

/* ---- commands ---- */

static bool put_labels(zcbor_state_t *out, const tr_model *model) {
    bool done = put_key(out, "labels") && zcbor_list_start_encode(out, model->outputs);
    for (uint32_t i = 0; done && i < model->outputs; i++) {
        const char *label = tr_model_label(model, i);
        if (strlen(label) + LABELS_MARGIN > room(out)) break;
        done = zcbor_tstr_encode_ptr(out, label, strlen(label));
    }
    return done && zcbor_list_end_encode(out, model->outputs);
}

static bool put_window(zcbor_state_t *out, const tr_model *model) {
    return put_bytes(out, "scale", model->input_scale, model->channels * 4) &&
           put_labels(out, model);
}

static bool put_stream(zcbor_state_t *out, const tr_model *model) {
    return put_u32(out, "position", model_session()->position) &&
           put_bool(out, "as_bytes", tr_model_bytes(model));
}

static bool put_model(zcbor_state_t *out, const tr_model *model) {
    return put_bytes(out, "digest", model->digest, 32) &&
           put_u32(out, "bytes", model->blob_bytes) && put_u32(out, "channels", model->channels) &&
           put_u32(out, "length", model->length) && put_u32(out, "outputs", model->outputs) &&
           put_float(out, "rate_hz", model->sample_rate_hz) &&
           put_u32(out, "infer_arena", model->infer_arena) &&
           put_u32(out, "adapt_arena", model->adapt_arena) &&
           put_u32(out, "floats", model->adapter_floats) &&
           put_text(out, "adapter", model_adapter_state()) &&
           put_u32(out, "steps", model_adapter_steps()) && put_u32(out, "kind", model->kind) &&
           (model->kind == TR_TOKENS ? put_stream(out, model) : put_window(out, model));
}

static int info(zcbor_state_t *out) {
    const tr_model *model = model_current();
    bool done = put_text(out, "board", BOARD_NAME) && put_text(out, "version", FIRMWARE_VERSION) &&
                put_text(out, "storage", slots_storage()) && put_text(out, "slot", model_slot()) &&
                put_u32(out, "arena", model_arena_bytes()) &&
                put_u32(out, "slot_bytes", slots_capacity(SLOT_MODEL)) &&
                put_text(out, "refused", group_files_refusal()) &&
                put_text(out, "model", model ? model->name : "");
    return encoded(done &&
                   (model ? put_model(out, model) : put_text(out, "reason", model_reason())));
}

static bool put_result(zcbor_state_t *out, const struct infer_result *result) {
    return put_bytes(out, "logits", result->logits, model_current()->outputs * 4) &&
           put_u32(out, "index", result->index) && put_u32(out, "us", result->us);
}

static int infer(const struct smp_request *request, zcbor_state_t *out) {
    struct window_part part = {{NULL, 0}, 0, 0};
    struct field fields[] = {WINDOW_FIELDS(part)};
    struct infer_result result;
    uint32_t next;
    if (!smp_read(request, fields, 3)) return smp_ternio(ERR_REQUEST);
    int code = take_window(&part, fields[0].found, &next);
    if (!code && next) return encoded(put_u32(out, "off", next));
    if (!code) code = model_infer(&result);
    if (code) return smp_ternio(code);
    return encoded(put_result(out, &result));
}

static int adapt_begin(const struct smp_request *request, zcbor_state_t *out) {
    tr_adapt_config config = tr_adapt_defaults();
    bool sgd = false;
    struct field fields[] = {{"lr", FIELD_FLOAT, &config.lr, false},
                             {"beta1", FIELD_FLOAT, &config.beta1, false},
                             {"beta2", FIELD_FLOAT, &config.beta2, false},
                             {"eps", FIELD_FLOAT, &config.eps, false},
                             {"clip", FIELD_FLOAT, &config.clip, false},
                             {"decay", FIELD_FLOAT, &config.weight_decay, false},
                             {"seed", FIELD_U64, &config.seed, false},
                             {"sgd", FIELD_BOOL, &sgd, false}};
    if (!smp_read(request, fields, 8)) return smp_ternio(ERR_REQUEST);
    config.optimizer = sgd ? TR_SGD : TR_ADAM;
    int code = model_adapt_begin(&config);
    if (code) return smp_ternio(code);
    return encoded(put_u32(out, "steps", model_adapter_steps()) &&
                   put_u32(out, "floats", model_current()->adapter_floats));
}

static int adapt_step(const struct smp_request *request, zcbor_state_t *out) {
    struct window_part part = {{NULL, 0}, 0, 0};
    uint32_t label = 0, next;
    float lr = 0.0f;
    struct field fields[] = {
        WINDOW_FIELDS(part), {"label", FIELD_U32, &label, false}, {"lr", FIELD_FLOAT, &lr, false}};
    struct step_result result;
    if (!smp_read(request, fields, 5) || !fields[3].found) return smp_ternio(ERR_REQUEST);
    int code = take_window(&part, fields[0].found, &next);
    if (!code && next) return encoded(put_u32(out, "off", next));
    if (!code) code = model_adapt_step(label, lr, &result);
    if (code) return smp_ternio(code);
    return encoded(put_float(out, "loss", result.loss) && put_u32(out, "step", result.step) &&
                   put_u32(out, "us", result.us));
}

static int adapter_save(zcbor_state_t *out) {
    struct slot_content stored;
    int code = model_adapter_save(&stored);
    if (code) return smp_ternio(code);
    return encoded(put_u32(out, "steps", model_adapter_steps()) &&
                   put_u32(out, "bytes", stored.bytes) && put_text(out, "slot", stored.name));
}

static int telemetry(const struct smp_request *request, zcbor_state_t *out) {
    bool on = false;
    struct field fields[] = {{"on", FIELD_BOOL, &on, false}};
    if (!smp_read(request, fields, 1) || !fields[0].found) return smp_ternio(ERR_REQUEST);
    telemetry_switch(on);
    return encoded(put_bool(out, "on", on));
}

/* ---- streams ---- */

static int prompt(const struct smp_request *request, zcbor_state_t *out) {
    struct zcbor_string text;
    bool more = false;
    struct field fields[] = {{"text", FIELD_BYTES, &text, false},
                             {"more", FIELD_BOOL, &more, false}};
    if (!smp_read(request, fields, 2) || !fields[0].found) return smp_ternio(ERR_REQUEST);
    uint32_t start = port_micros();
    int code = stream_prompt((const char *)text.value, text.len, !more);
    if (code) return smp_ternio(code);
    return encoded(put_u32(out, "position", model_session()->position) &&
                   put_u32(out, "us", port_micros() - start));
}

/* Bytes that an answer to `generate` takes beside its tokens, and for each of them: two, and four
 * of UTF-8. */
#define GENERATE_OVERHEAD    40u
#define GENERATE_TOKEN_BYTES 6u

static int generate_tokens(uint32_t wanted, uint8_t *tokens, struct text *text) {
    for (uint32_t i = 0, token; i < wanted; i++) {
        int code = stream_next(&token);
        if (code) return code;
        tokens[2 * i] = (uint8_t)token;
        tokens[2 * i + 1] = (uint8_t)(token >> 8);
        stream_write(text, token);
    }
    return 0;
}

static int generate(const struct smp_request *request, zcbor_state_t *out) {
    tr_sampler wanted = {.state = stream_sampler.state};
    uint32_t n = 1, most = (room(out) - GENERATE_OVERHEAD) / GENERATE_TOKEN_BYTES;
    struct field fields[] = {{"n", FIELD_U32, &n, false},
                             {"temperature", FIELD_FLOAT, &wanted.temperature, false},
                             {"top_k", FIELD_U32, &wanted.top_k, false},
                             {"top_p", FIELD_FLOAT, &wanted.top_p, false},
                             {"seed", FIELD_U64, &wanted.state, false}};
    struct text text;
    if (!smp_read(request, fields, 5) || n < 1) return smp_ternio(ERR_REQUEST);
    if (n > most) n = most;
    /* Both members grow at once: the tokens where the answer ends, the text in its place. */
    put_text_begin(out, "text", 2 * n + GENERATE_OVERHEAD / 2, &text);
    uint8_t *tokens = out->payload_mut + room(out) - 2 * n;
    uint32_t start = port_micros();
    stream_sampler = wanted;
    int code = generate_tokens(n, tokens, &text);
    if (code) return smp_ternio(code);
    uint32_t us = port_micros() - start;
    telemetry_generate(n, us);
    return encoded(put_bytes(out, "text", text.buffer, text.length) &&
                   put_bytes(out, "tokens", tokens, 2 * n) && put_u32(out, "us", us));
}

/* ---- frames of a sensor ---- */

static int take_frames(const struct zcbor_string *x, bool *due) {
    int16_t frame[FRAME_CHANNELS];
    const tr_model *model = model_current();
    if (!model) return smp_ternio(ERR_NO_MODEL);
    uint32_t channels = model->channels;
    if (!x->len || channels > FRAME_CHANNELS || x->len % (2 * channels))
        return smp_ternio(ERR_REQUEST);
    for (const uint8_t *at = x->value; at < x->value + x->len; at += 2 * channels) {
        bool now = false;
        for (uint32_t c = 0; c < channels; c++)
            frame[c] = (int16_t)(uint16_t)(at[2 * c] | at[2 * c + 1] << 8);
        int code = window_frame(frame, &now);
        if (code) return smp_ternio(code);
        *due |= now;
    }
    return SMP_OK;
}

static int frames(const struct smp_request *request, zcbor_state_t *out) {
    struct zcbor_string x = {NULL, 0};
    uint32_t hop = 0;
    bool due = false;
    struct infer_result result;
    struct field fields[] = {{"x", FIELD_BYTES, &x, false}, {"hop", FIELD_U32, &hop, false}};
    if (!smp_read(request, fields, 2)) return smp_ternio(ERR_REQUEST);
    if (fields[1].found) {
        int code = window_every(hop);
        if (code) return smp_ternio(code);
    }
    int outcome = fields[0].found ? take_frames(&x, &due) : SMP_OK;
    if (outcome || !due) return outcome;
    int code = model_infer(&result);
    return code ? smp_ternio(code) : encoded(put_result(out, &result));
}

int group_ternio(const struct smp_request *request, zcbor_state_t *out) {
    if (request->write != (request->id != 0)) return SMP_ENOTSUP;
    switch (request->id) {
    case 0:
        return info(out);
    case 1:
        return infer(request, out);
    case 2:
        return adapt_begin(request, out);
    case 3:
        return adapt_step(request, out);
    case 4:
        return adapter_save(out);
    case 5:
        return smp_ternio(model_adapter_reset());
    case 6:
        return telemetry(request, out);
    case 7:
        return prompt(request, out);
    case 8:
        return generate(request, out);
    case 9:
        return frames(request, out);
    default:
        return SMP_ENOTSUP;
    }
}
