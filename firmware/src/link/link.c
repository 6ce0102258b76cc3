/* link.c - see link.h. The framing is that of Zephyr's SMP over console: lines of base64 that begin
 * with 06 09 (first) or 04 14 (further), holding a big-endian length, the message, and a
 * CRC-16/XMODEM over the message. */
#include "link/link.h"

#include <stdbool.h>

#include "board_config.h"
#include "console/console.h"
#include "link/smp.h"
#include "port.h"

#define TEXT_LIMIT  480u
#define FRAME_FIRST 0x06u /* first byte of a frame */
#define CTRL_C      0x03u
#define LINE_RAW_BYTES                                                                             \
    93u /* 124 base64 characters; with the two first bytes and the newline 127                     \
         */
#define BASE64_PADDING 64u
#define BASE64_INVALID 65u

static struct link_counters counters;

/* ---- receiving ---- */

static enum {
    LINE_START,
    LINE_TEXT,
    LINE_TEXT_LONG,
    LINE_DELIMITER,
    LINE_BASE64,
    LINE_SKIP
} state = LINE_START;
static uint8_t delimiter; /* first byte of a frame line */
static union {
    char line[TEXT_LIMIT + 1];
    uint8_t frame[BOARD_FRAME_BYTES]; /* message and CRC, without the length before them */
} input;                              /* either: a text line breaks off an unfinished frame */
static uint32_t line_length;
static bool frame_open;
static uint32_t frame_bytes,
    frame_expected; /* received, counting the two bytes of length; said by the length */
static uint32_t quad, quad_chars, quad_padding;

static uint16_t crc16(const uint8_t *data, size_t count) {
    uint32_t crc = 0;
    while (count--) {
        crc ^= (uint32_t)*data++ << 8;
        for (int bit = 0; bit < 8; bit++) crc = crc & 0x8000u ? crc << 1 ^ 0x1021u : crc << 1;
    }
    return (uint16_t)crc;
}

static uint32_t base64_value(uint8_t c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26u;
    if (c >= '0' && c <= '9') return c - '0' + 52u;
    if (c == '+') return 62;
    if (c == '/') return 63;
    return c == '=' ? BASE64_PADDING : BASE64_INVALID;
}

static void drop_frame(void) {
    counters.frame_errors++;
    frame_open = false;
    state = LINE_SKIP;
}

static void send_frame(const uint8_t *message, uint32_t bytes);

static void frame_complete(void) {
    frame_open = false;
    uint32_t message_bytes = frame_expected - 2;
    uint8_t *frame = input.frame;
    if (crc16(frame, message_bytes) !=
        ((uint32_t)frame[message_bytes] << 8 | frame[message_bytes + 1])) {
        counters.frame_errors++;
        return;
    }
    counters.frames++;
    static uint8_t response[BOARD_FRAME_BYTES];
    uint32_t response_bytes = smp_handle(frame, message_bytes, response, sizeof response);
    if (response_bytes) send_frame(response, response_bytes);
}

/* One decoded byte: two of length, then message and CRC. A byte beyond the length is an error. */
static bool frame_byte(uint8_t byte) {
    if (frame_bytes < 2) {
        frame_expected = frame_expected << 8 | byte;
        frame_bytes++;
        return frame_bytes < 2 || (frame_expected > 2 && frame_expected <= sizeof input.frame);
    }
    if (frame_bytes - 2 == frame_expected) return false;
    input.frame[frame_bytes++ - 2] = byte;
    return true;
}

static void base64_char(uint8_t c) {
    uint32_t value = base64_value(c);
    if (value == BASE64_INVALID || (quad_padding && value != BASE64_PADDING)) {
        drop_frame();
        return;
    }
    if (value == BASE64_PADDING) quad_padding++;
    quad = quad << 6 | (value & 63u);
    if (++quad_chars < 4) return;
    uint32_t bytes = quad_padding > 2 ? 0 : 3 - quad_padding;
    for (uint32_t i = 0; i < bytes; i++)
        if (!frame_byte((uint8_t)(quad >> (16 - 8 * i)))) {
            drop_frame();
            return;
        }
    quad = quad_chars = 0;
}

static void frame_line_end(void) {
    if (quad_chars) {
        drop_frame();
    } else if (frame_open && frame_bytes >= 2 && frame_bytes - 2 == frame_expected) {
        frame_complete();
    }
    state = LINE_START;
}

static void frame_line_begin(uint8_t second) {
    bool first = delimiter == FRAME_FIRST && second == 0x09;
    bool further = delimiter == 0x04 && second == 0x14;
    if (first) {
        if (frame_open) counters.frame_errors++; /* the one before broke off */
        frame_open = true;
        frame_bytes = frame_expected = 0;
    }
    quad = quad_chars = quad_padding = 0;
    if (first || (further && frame_open))
        state = LINE_BASE64;
    else
        drop_frame();
}

static void text_line_end(void) {
    if (state == LINE_TEXT_LONG) {
        console_line_too_long();
    } else if (line_length) {
        input.line[line_length] = '\0';
        console_line(input.line);
    }
    line_length = 0;
    state = LINE_START;
}

static void text_byte(uint8_t byte) {
    if (line_length == TEXT_LIMIT) {
        state = LINE_TEXT_LONG;
        return;
    }
    if (frame_open) {
        counters.frame_errors++;
        frame_open = false;
    }
    input.line[line_length++] = byte ? (char)byte : '?';
    state = LINE_TEXT;
}

static void line_end(void) {
    if (state == LINE_BASE64)
        frame_line_end();
    else if (state == LINE_TEXT || state == LINE_TEXT_LONG)
        text_line_end();
    else
        state = LINE_START;
}

static void receive_byte(uint8_t byte) {
    if (byte == '\n' || byte == '\r') {
        line_end();
    } else if (byte == CTRL_C) {
        line_length = 0;
        frame_open = false;
        state = LINE_START;
    } else if (state == LINE_START && (byte == FRAME_FIRST || byte == 0x04)) {
        delimiter = byte;
        state = LINE_DELIMITER;
    } else if (state == LINE_DELIMITER) {
        frame_line_begin(byte);
    } else if (state == LINE_BASE64) {
        base64_char(byte);
    } else if (state == LINE_START || state == LINE_TEXT) {
        text_byte(byte);
    }
}

void link_receive(const uint8_t *bytes, size_t count) {
    while (count--) receive_byte(*bytes++);
}

struct link_counters link_counters(void) {
    return counters;
}

bool link_interrupted(void) {
    return port_rx_holds(CTRL_C) || port_rx_holds(FRAME_FIRST);
}

/* ---- sending ---- */

/* Byte `at` of length, message and CRC in a row. */
static uint8_t framed_byte(const uint8_t *message, uint32_t bytes, uint16_t crc, uint32_t at) {
    uint32_t length = bytes + 2;
    if (at < 2) return (uint8_t)(at ? length : length >> 8);
    if (at < 2 + bytes) return message[at - 2];
    return (uint8_t)(at == 2 + bytes ? crc >> 8 : crc);
}

/* Not inlined: its line of output would lie on the stack below every command. */
__attribute__((noinline)) static void send_frame(const uint8_t *message, uint32_t bytes) {
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint16_t crc = crc16(message, bytes);
    uint32_t total = bytes + 4;
    for (uint32_t at = 0; at < total;) {
        char out[2 + LINE_RAW_BYTES / 3 * 4 + 1];
        uint32_t length = 0, line_stop = at + LINE_RAW_BYTES < total ? at + LINE_RAW_BYTES : total;
        out[length++] = at ? 0x04 : 0x06;
        out[length++] = at ? 0x14 : 0x09;
        for (; at < line_stop; at += 3) {
            uint32_t count = line_stop - at < 3 ? line_stop - at : 3, bits = 0;
            for (uint32_t i = 0; i < 3; i++)
                bits = bits << 8 | (i < count ? framed_byte(message, bytes, crc, at + i) : 0);
            for (uint32_t i = 0; i < 4; i++)
                out[length++] = i <= count ? alphabet[bits >> (18 - 6 * i) & 63] : '=';
        }
        out[length++] = '\n';
        port_tx(out, length);
    }
}
