/* generate.c - the console's command `generate`: characters as they come, in one line. */
#include <string.h>

#include "console/answer.h"
#include "errors.h"
#include "link/link.h"
#include "model/model.h"
#include "model/stream.h"
#include "port.h"
#include "telemetry.h"

#define MOST_TOKENS 1000000

/* `\n`, `\r`, `\t` and `\\` of a prompt, in place; returns its length. */
static size_t unescape(char *text) {
    static const char names[] = "nrt\\", characters[] = "\n\r\t\\";
    char *to = text;
    for (const char *from = text; *from; to++) {
        const char *known = *from == '\\' && from[1] ? strchr(names, from[1]) : NULL;
        *to = known ? characters[known - names] : *from;
        from += known ? 2 : 1;
    }
    return (size_t)(to - text);
}

/* Control characters and the backslash as an escape, so that the answer stays one line. */
static void put_escaped(struct text *answer, const char *characters, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        uint8_t c = (uint8_t)characters[i];
        if (c == '\n' || c == '\\') {
            text_char(answer, '\\');
            text_char(answer, c == '\n' ? 'n' : '\\');
        } else if (c < ' ' || c == 0x7F) {
            text_put(answer, "\\x");
            text_hex(answer, &c, 1);
        } else {
            text_char(answer, (char)c);
        }
    }
}

static void put_token(struct text *answer, uint32_t token) {
    char buffer[8];
    struct text characters;
    text_init(&characters, buffer, sizeof buffer);
    stream_write(&characters, token);
    put_escaped(answer, buffer, characters.length);
    if (answer->flush) text_flush(answer);
}

static bool read_setting(const char *key, const char *value, tr_sampler *sampler, bool *seeded) {
    int32_t whole;
    if (!strcmp(key, "temperature")) return text_parse_float(value, &sampler->temperature);
    if (!strcmp(key, "top_p")) return text_parse_float(value, &sampler->top_p);
    if (!text_parse(value, 0, INT32_MAX, &whole)) return false;
    if (!strcmp(key, "top_k"))
        sampler->top_k = (uint32_t)whole;
    else if (!strcmp(key, "seed"))
        sampler->state = (uint32_t)whole;
    else
        return false;
    *seeded |= *key == 's';
    return true;
}

/* Ends early when somebody interrupts, and when nobody would see more. */
static int generate(uint32_t count, struct text *answer) {
    uint32_t token, done = 0, start = port_micros();
    while (done < count && !answer->cut && !link_interrupted()) {
        int code = stream_next(&token);
        if (code) return code;
        put_token(answer, token);
        done++;
    }
    telemetry_generate(done, port_micros() - start);
    return 0;
}

bool command_generate(char *rest, struct text *answer) {
    static char line_feed[] = "\n";
    tr_sampler wanted = {0};
    bool seeded = false;
    const char *word = answer_word(&rest), *prompt = stream_begun() ? NULL : line_feed;
    size_t prompt_bytes = 1;
    int32_t count;
    if (!word || !text_parse(word, 1, MOST_TOKENS, &count))
        return answer_error(answer, "generate N: N is a number from 1 on", "");
    while ((word = answer_word(&rest)) != NULL) {
        if (!strcmp(word, "prompt")) {
            if (!*rest) return answer_error(answer, "prompt: the text is missing", "");
            prompt_bytes = unescape(rest);
            prompt = rest;
            break;
        }
        const char *value = answer_word(&rest);
        if (!value || !read_setting(word, value, &wanted, &seeded))
            return answer_error(answer, "not a setting and its value: ", word);
    }
    int code = prompt ? stream_prompt(prompt, prompt_bytes, true) : 0;
    if (!seeded) wanted.state = stream_sampler.state;
    stream_sampler = wanted;
    if (!code) code = generate((uint32_t)count, answer);
    return code ? answer_code(answer, code) : true;
}
