/* text.c - see text.h. */
#include "text.h"

#include <string.h>

void text_init(struct text *text, char *buffer, size_t capacity) {
    *text = (struct text){buffer, capacity, 0, false, NULL};
    buffer[0] = '\0';
}

void text_flush(struct text *text) {
    if (text->flush) text->flush(text->buffer, text->length);
    text->length = 0;
}

void text_char(struct text *text, char c) {
    if (text->flush && text->length + 1 >= text->capacity) text_flush(text);
    if (text->length + 1 >= text->capacity) {
        text->cut = true;
        return;
    }
    text->buffer[text->length++] = c;
    text->buffer[text->length] = '\0';
}

void text_put(struct text *text, const char *string) {
    while (*string) text_char(text, *string++);
}

void text_put_replaced(struct text *text, const char *string, char from, char to) {
    for (; *string; string++) text_char(text, *string == from ? to : *string);
}

void text_u32(struct text *text, uint32_t value) {
    char digits[10];
    int count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    while (count) text_char(text, digits[--count]);
}

void text_hex(struct text *text, const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        text_char(text, "0123456789abcdef"[bytes[i] >> 4]);
        text_char(text, "0123456789abcdef"[bytes[i] & 15]);
    }
}

void text_fixed4(struct text *text, float value) {
    if (value != value) {
        text_put(text, "nan");
        return;
    }
    if (value < 0) {
        text_char(text, '-');
        value = -value;
    }
    if (value > 4294000000.0f) {
        text_put(text, "inf");
        return;
    }
    uint32_t whole = (uint32_t)value;
    uint32_t fraction = (uint32_t)((value - (float)whole) * 10000.0f + 0.5f);
    if (fraction == 10000) {
        whole++;
        fraction = 0;
    }
    text_u32(text, whole);
    text_char(text, '.');
    for (uint32_t unit = 1000; unit; unit /= 10)
        text_char(text, (char)('0' + fraction / unit % 10));
}

void text_json(struct text *text, const char *string) {
    text_char(text, '"');
    for (; *string; string++) {
        uint8_t c = (uint8_t)*string;
        if (c == '"' || c == '\\') text_char(text, '\\');
        if (c < 0x20) {
            text_put(text, "\\u00");
            text_hex(text, &c, 1);
        } else {
            text_char(text, (char)c);
        }
    }
    text_char(text, '"');
}

bool text_parse(const char *string, int32_t low, int32_t high, int32_t *value) {
    bool negative = *string == '-';
    if (negative) string++;
    int64_t sum = 0;
    size_t digits = 0;
    for (; *string >= '0' && *string <= '9'; string++, digits++) {
        if (digits == 10) return false;
        sum = sum * 10 + (*string - '0');
    }
    if (*string || !digits) return false;
    if (negative) sum = -sum;
    if (sum < low || sum > high) return false;
    *value = (int32_t)sum;
    return true;
}

bool text_parse_float(const char *string, float *value) {
    uint32_t digits = 0, sum = 0, scale = 1;
    bool point = false;
    for (; *string; string++) {
        if (*string == '.' && !point) {
            point = true;
            continue;
        }
        if (*string < '0' || *string > '9' || ++digits > 7) return false;
        sum = sum * 10 + (uint32_t)(*string - '0');
        if (point) scale *= 10;
    }
    *value = (float)sum / (float)scale; /* both exact, so one rounding */
    return digits > 0;
}

void text_utf8(struct text *text, uint32_t code) {
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const uint8_t heads[] = {0, 0xC0, 0xE0, 0xF0};
    text_char(text, (char)(heads[more] | code >> 6 * more));
    while (more--) text_char(text, (char)(0x80u | (code >> 6 * more & 0x3Fu)));
}

uint32_t text_code(const char **string, const char *end) {
    uint8_t head = (uint8_t) * (*string)++;
    int more = head < 0x80 ? 0 : (head & 0xE0) == 0xC0 ? 1 : (head & 0xF0) == 0xE0 ? 2 : 3;
    if (!more) return head;
    if (head < 0xC2 || head > 0xF4 || end - *string < more) return 0xFFFD;
    uint32_t code = head & (0x3Fu >> more);
    for (int i = 0; i < more; i++) {
        if (((uint8_t)(*string)[i] & 0xC0) != 0x80) return 0xFFFD;
        code = code << 6 | ((uint8_t)(*string)[i] & 0x3Fu);
    }
    *string += more;
    return code;
}
