/* text.h - builds texts in a fixed buffer, without printf. A full buffer is handed to `flush` and
 * begun anew; without `flush` the text is cut there, noted in `cut`. */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
    char *buffer; /* always NUL-terminated */
    size_t capacity, length;
    bool cut;
    void (*flush)(const void *data, size_t bytes);
};

void text_init(struct text *text, char *buffer, size_t capacity);

/* Hands what is left to `flush`. */
void text_flush(struct text *text);
void text_char(struct text *text, char c);
void text_put(struct text *text, const char *string);

/* The string with `from` replaced by `to`. */
void text_put_replaced(struct text *text, const char *string, char from, char to);
void text_u32(struct text *text, uint32_t value);
void text_hex(struct text *text, const uint8_t *bytes, size_t count);

/* value with four decimals, rounded half up; nan, inf and -inf by name. */
void text_fixed4(struct text *text, float value);

/* A JSON string, quotes included. */
void text_json(struct text *text, const char *string);

/* A code point as UTF-8. */
void text_utf8(struct text *text, uint32_t code);

/* The code point at `*string`, which moves past it; a byte that is not UTF-8 counts as U+FFFD. */
uint32_t text_code(const char **string, const char *end);

/* Decimal number of the whole word `string`, with at most seven digits and no exponent: rounded as
 * any compiler would round it. */
bool text_parse_float(const char *string, float *value);

/* Decimal integer of the whole word `string`, in [low, high]. */
bool text_parse(const char *string, int32_t low, int32_t high, int32_t *value);

#endif
