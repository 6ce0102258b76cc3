/* console.c - see console.h. */
#include "console/console.h"

#include <string.h>

#include "board_config.h"
#include "console/answer.h"
#include "errors.h"
#include "link/link.h"
#include "model/model.h"
#include "model/window.h"
#include "port.h"
#include "storage/slots.h"
#include "telemetry.h"
#include "version.h"

static bool reset_asked;

/* ---- commands ---- */

static bool info(char *rest, struct text *answer) {
    (void)rest;
    const tr_model *model = model_current();
    answer_text(answer, "board", BOARD_NAME);
    answer_text(answer, "version", FIRMWARE_VERSION);
    answer_text(answer, "model", model ? model->name : "none");
    if (!model) answer_text(answer, "reason", model_reason());
    if (model) {
        answer_text(answer, "digest", "");
        text_hex(answer, model->digest, 8);
    }
    answer_text(answer, "slot", model_slot());
    answer_text(answer, "storage", slots_storage());
    answer_u32(answer, "arena", model_arena_bytes());
    if (model) {
        answer_u32(answer, "infer_arena", model->infer_arena);
        answer_u32(answer, "adapt_arena", model->adapt_arena);
        if (model->kind == TR_TOKENS) {
            answer_u32(answer, "vocabulary", model->outputs);
            answer_u32(answer, "context", model->length);
            answer_u32(answer, "position", model_session()->position);
        }
    }
    answer_text(answer, "adapter", model_adapter_state());
    if (port_fault_text()) answer_text(answer, "restarted_after", port_fault_text());
    return true;
}

static bool labels(char *rest, struct text *answer) {
    (void)rest;
    const tr_model *model = model_current();
    if (!model) return answer_code(answer, ERR_NO_MODEL);
    if (model->kind != TR_WINDOW) return answer_code(answer, TR_ERR_KIND);
    for (uint32_t i = 0; i < model->outputs; i++) {
        if (i) text_char(answer, ' ');
        text_u32(answer, i);
        text_char(answer, '=');
        text_put_replaced(answer, tr_model_label(model, i), ' ', '-');
    }
    return true;
}

static bool put(char *rest, struct text *answer) {
    int32_t offset, value;
    char *word = answer_word(&rest);
    if (!model_current()) return answer_code(answer, ERR_NO_MODEL);
    if (!word || !text_parse(word, 0, INT32_MAX, &offset))
        return answer_error(answer, "put OFFSET N ...: OFFSET is a number from 0 on", "");
    uint32_t first = (uint32_t)offset, count = 0;
    while ((word = answer_word(&rest)) != NULL) {
        if (!text_parse(word, INT16_MIN, INT16_MAX, &value))
            return answer_error(answer, "not an int16 number: ", word);
        uint8_t bytes[2] = {(uint8_t)value, (uint8_t)((uint32_t)value >> 8)};
        int code = window_write(first + count, bytes, 1, false);
        if (code == ERR_REQUEST) return answer_error(answer, "beyond the end of the window", "");
        if (code == ERR_WINDOW) return answer_error(answer, "leaves a gap in the window", "");
        if (code) return answer_code(answer, code);
        count++;
    }
    if (!count) return answer_error(answer, "put OFFSET N ...: no numbers given", "");
    text_put(answer, "ok ");
    text_u32(answer, window_filled());
    return true;
}

static bool infer(char *rest, struct text *answer) {
    (void)rest;
    struct infer_result result;
    int code = model_infer(&result);
    if (code) return answer_code(answer, code);
    answer_infer(answer, &result);
    return true;
}

static bool adapt(char *rest, struct text *answer) {
    if (!model_current()) return answer_code(answer, ERR_NO_MODEL);
    struct step_result result;
    char *word = answer_word(&rest);
    int32_t label = word ? model_find_label(word) : -1;
    if (!word) return answer_error(answer, "adapt CLASS: a label or its index is missing", "");
    if (label < 0) return answer_error(answer, "no such class: ", word);
    int code = model_adapt_step((uint32_t)label, 0.0f, &result);
    if (code) return answer_code(answer, code);
    answer_u32(answer, "step", result.step);
    answer_fixed(answer, "loss", result.loss);
    answer_u32(answer, "us", result.us);
    return true;
}

static bool adapter_save(struct text *answer) {
    struct slot_content stored;
    int code = model_adapter_save(&stored);
    if (code) return answer_code(answer, code);
    text_put(answer, "saved");
    answer_u32(answer, "steps", model_adapter_steps());
    answer_u32(answer, "bytes", stored.bytes);
    answer_text(answer, "slot", stored.name);
    return true;
}

static bool adapter(char *rest, struct text *answer) {
    const char *word = answer_word(&rest);
    if (!model_current()) return answer_code(answer, ERR_NO_MODEL);
    if (word && !strcmp(word, "save")) return adapter_save(answer);
    if (word && !strcmp(word, "reset")) {
        int code = model_adapter_reset();
        return code ? answer_code(answer, code) : answer_ok(answer);
    }
    if (word) return answer_error(answer, "adapter takes save, reset or nothing, not ", word);
    answer_text(answer, "adapter", model_adapter_state());
    answer_u32(answer, "steps", model_adapter_steps());
    answer_u32(answer, "floats", model_current()->adapter_floats);
    return true;
}

static bool telemetry(char *rest, struct text *answer) {
    const char *word = answer_word(&rest);
    bool on = word && !strcmp(word, "on");
    if (!on && !(word && !strcmp(word, "off")))
        return answer_error(answer, "telemetry takes on or off", "");
    telemetry_switch(on);
    return answer_ok(answer);
}

static bool stats(char *rest, struct text *answer) {
    (void)rest;
    struct model_counters work = model_counters();
    struct link_counters traffic = link_counters();
    answer_u32(answer, "uptime_ms", port_millis());
    answer_u32(answer, "infers", work.infers);
    answer_u32(answer, "steps", work.steps);
    answer_u32(answer, "frames", traffic.frames);
    answer_u32(answer, "frame_errors", traffic.frame_errors);
    answer_u32(answer, "rx_lost", port_rx_lost());
    answer_u32(answer, "stack_free", port_stack_free());
    return true;
}

static bool reset(char *rest, struct text *answer) {
    (void)rest;
    reset_asked = true;
    return answer_ok(answer);
}

static bool help(char *rest, struct text *answer);

static const struct command {
    const char *name, *usage;
    bool (*run)(char *rest, struct text *answer);
} commands[] = {
    {"help", "help", help},
    {"info", "info", info},
    {"labels", "labels", labels},
    {"put", "put OFFSET N N ...", put},
    {"infer", "infer", infer},
    {"every", "every HOP", command_every},
    {"frame", "frame N N ...", command_frame},
    {"generate", "generate N [temperature T] [top_k K] [top_p P] [seed S] [prompt TEXT]",
     command_generate},
    {"adapt", "adapt CLASS", adapt},
    {"adapter", "adapter [save|reset]", adapter},
    {"telemetry", "telemetry on|off", telemetry},
    {"stats", "stats", stats},
    {"reset", "reset", reset},
};

#define COMMAND_COUNT (sizeof commands / sizeof *commands)

static bool help(char *rest, struct text *answer) {
    (void)rest;
    text_put(answer, "commands: ");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (i) text_put(answer, "; ");
        text_put(answer, commands[i].usage);
    }
    return true;
}

/* ---- entry points ---- */

bool console_run(char *line, struct text *answer) {
    char *rest = line;
    const char *word = answer_word(&rest);
    if (!word) return answer_error(answer, "empty line; type help", "");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (!strcmp(word, commands[i].name)) return commands[i].run(rest, answer);
    return answer_error(answer, "unknown command; type help: ", word);
}

static void answer_begin(struct text *answer, char *buffer, size_t capacity) {
    text_init(answer, buffer, capacity);
    answer->flush = port_tx;
}

static void answer_end(struct text *answer) {
    text_put(answer, "\r\n");
    text_flush(answer);
}

void console_line(char *line) {
    char buffer[128];
    struct text answer;
    answer_begin(&answer, buffer, sizeof buffer);
    console_run(line, &answer);
    answer_end(&answer);
}

void console_line_too_long(void) {
    char buffer[128];
    struct text answer;
    answer_begin(&answer, buffer, sizeof buffer);
    answer_error(&answer, "line longer than 480 characters", "");
    answer_end(&answer);
}

void console_banner(void) {
    char buffer[128];
    struct text line;
    const tr_model *model = model_current();
    answer_begin(&line, buffer, sizeof buffer);
    text_put(&line, "ternio " FIRMWARE_VERSION " on " BOARD_NAME ": ");
    if (model) {
        text_put(&line, "model ");
        text_put(&line, model->name);
        text_put(&line, ", ");
        text_u32(&line, model->outputs);
        text_put(&line, model->kind == TR_TOKENS ? " tokens" : " classes");
    } else {
        text_put(&line, "no model");
    }
    text_put(&line, ", storage ");
    text_put(&line, slots_storage());
    text_put(&line, "; type help");
    answer_end(&line);
}

bool console_reset_asked(void) {
    return reset_asked;
}
void console_ask_reset(void) {
    reset_asked = true;
}
