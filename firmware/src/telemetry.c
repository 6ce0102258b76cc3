/* telemetry.c - see telemetry.h and PROTOCOL.md. */
#include "telemetry.h"

#include "port.h"
#include "text.h"

#define LINE_BYTES 192

static bool switched_on;

void telemetry_switch(bool on) {
    switched_on = on;
}

static void key(struct text *line, const char *name) {
    text_char(line, ',');
    text_json(line, name);
    text_char(line, ':');
}

static void begin(struct text *line, char *buffer, const char *event) {
    text_init(line, buffer, LINE_BYTES);
    text_put(line, "{\"event\":");
    text_json(line, event);
}

/* A line that a long label would have cut is not valid JSON and is dropped. */
static void end(struct text *line) {
    text_put(line, "}\r\n");
    if (!line->cut) port_tx(line->buffer, line->length);
}

void telemetry_infer(const char *label, const struct infer_result *result) {
    char buffer[LINE_BYTES];
    struct text line;
    if (!switched_on) return;
    begin(&line, buffer, "infer");
    key(&line, "class");
    text_json(&line, label);
    key(&line, "index");
    text_u32(&line, result->index);
    key(&line, "p");
    text_fixed4(&line, result->probability);
    key(&line, "us");
    text_u32(&line, result->us);
    end(&line);
}

void telemetry_step(const char *label, const struct step_result *result) {
    char buffer[LINE_BYTES];
    struct text line;
    if (!switched_on) return;
    begin(&line, buffer, "adapt");
    key(&line, "step");
    text_u32(&line, result->step);
    key(&line, "loss");
    text_fixed4(&line, result->loss);
    key(&line, "label");
    text_json(&line, label);
    key(&line, "us");
    text_u32(&line, result->us);
    end(&line);
}

void telemetry_generate(uint32_t tokens, uint32_t us) {
    char buffer[LINE_BYTES];
    struct text line;
    if (!switched_on) return;
    begin(&line, buffer, "generate");
    key(&line, "tokens");
    text_u32(&line, tokens);
    key(&line, "us");
    text_u32(&line, us);
    end(&line);
}

void telemetry_model(const tr_model *model, const char *slot) {
    char buffer[LINE_BYTES];
    struct text line;
    if (!switched_on) return;
    begin(&line, buffer, "model");
    key(&line, "name");
    text_json(&line, model->name);
    key(&line, "digest");
    text_char(&line, '"');
    text_hex(&line, model->digest, 8);
    text_char(&line, '"');
    key(&line, "slot");
    text_json(&line, slot);
    end(&line);
}
