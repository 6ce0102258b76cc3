/* stream.h - the input and output of a model of tokens: a prompt, then one token after the other.
 * Where the context is full, the stream starts again with the last half of it, as every ternio
 * program does. Codes are those of errors.h. */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"
#include "tr.h"

/* How to choose, for stream_next. Its `state` is the seed of the stream; it goes on from call to
 * call. */
extern tr_sampler stream_sampler;

/* Takes the characters of a UTF-8 text (or its bytes, where tokens are bytes); `anew` forgets what
 * was before. Nothing is taken when one of them is unknown (ERR_CHARACTER). */
int stream_prompt(const char *text, size_t bytes, bool anew);

/* Whether there is something to go on from: stream_next can be called. */
bool stream_begun(void);

/* The next token, which is part of the stream from then on. */
int stream_next(uint32_t *token);

/* The characters of a token: UTF-8, a byte, or U+FFFD for the token of all other characters. */
void stream_write(struct text *text, uint32_t token);

/* Another model. */
void stream_forget(void);

#endif
