/* answer.h - what the commands of the console share: words of a line, and answers of pairs. */
#ifndef ANSWER_H
#define ANSWER_H

#include <stdbool.h>

#include "text.h"

/* Next word of a line, or NULL; words are separated by spaces. */
char *answer_word(char **rest);

/* "error: ", what was wrong, and the word that was; false. */
bool answer_error(struct text *answer, const char *what, const char *detail);

/* The same for a code of errors.h. */
bool answer_code(struct text *answer, int code);

/* "ok"; true. */
bool answer_ok(struct text *answer);

/* key=value, after a space where something is there already; spaces in values become "-". */
void answer_text(struct text *answer, const char *key, const char *value);
void answer_u32(struct text *answer, const char *key, uint32_t value);
void answer_fixed(struct text *answer, const char *key, float value);

/* Class, probability and time of an inference. */
struct infer_result;
void answer_infer(struct text *answer, const struct infer_result *result);

/* ---- commands in files of their own ---- */

bool command_generate(char *rest, struct text *answer);
bool command_every(char *rest, struct text *answer);
bool command_frame(char *rest, struct text *answer);

#endif
