/* answer.c - see answer.h. */
#include "console/answer.h"

#include <string.h>

#include "errors.h"
#include "model/model.h"

char *answer_word(char **rest) {
    char *word = *rest + strspn(*rest, " \t");
    if (!*word) return NULL;
    char *end = word + strcspn(word, " \t");
    *rest = *end ? end + 1 : end;
    *end = '\0';
    return word;
}

bool answer_error(struct text *answer, const char *what, const char *detail) {
    text_put(answer, "error: ");
    text_put(answer, what);
    for (; *detail; detail++) text_char(answer, *detail >= ' ' && *detail <= '~' ? *detail : '?');
    return false;
}

bool answer_code(struct text *answer, int code) {
    return answer_error(answer, error_text(code), "");
}

void answer_text(struct text *answer, const char *key, const char *value) {
    if (answer->length) text_char(answer, ' ');
    text_put(answer, key);
    text_char(answer, '=');
    text_put_replaced(answer, value, ' ', '-');
}

void answer_u32(struct text *answer, const char *key, uint32_t value) {
    answer_text(answer, key, "");
    text_u32(answer, value);
}

void answer_fixed(struct text *answer, const char *key, float value) {
    answer_text(answer, key, "");
    text_fixed4(answer, value);
}

bool answer_ok(struct text *answer) {
    text_put(answer, "ok");
    return true;
}

void answer_infer(struct text *answer, const struct infer_result *result) {
    answer_text(answer, "class", tr_model_label(model_current(), result->index));
    answer_fixed(answer, "p", result->probability);
    answer_u32(answer, "us", result->us);
}
