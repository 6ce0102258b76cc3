/* group_os.c - SMP groups 0 (operating system), 2 (statistics) and 9 (shell), as Zephyr's MCUmgr
 * defines them. */
#include <string.h>

#include "board_config.h"
#include "console/console.h"
#include "link/link.h"
#include "link/smp.h"
#include "model/model.h"
#include "port.h"
#include "version.h"

#define AFTER_TEXT_BYTES 8u

/* ---- group 0 ---- */

static int echo(const struct smp_request *request, zcbor_state_t *out) {
    struct zcbor_string text;
    struct field fields[] = {{"d", FIELD_TEXT, &text, false}};
    if (!smp_read(request, fields, 1) || !fields[0].found) return SMP_EINVAL;
    return encoded(put_key(out, "r") && zcbor_tstr_encode(out, &text));
}

static int parameters(zcbor_state_t *out) {
    return encoded(put_u32(out, "buf_size", BOARD_FRAME_BYTES) && put_u32(out, "buf_count", 1));
}

/* Fields of `uname`, in the order of Zephyr's format letters. */
static int application_info(const struct smp_request *request, zcbor_state_t *out) {
    static const struct {
        char letter;
        const char *text;
    } parts[] = {{'s', "ternio"},         {'n', BOARD_NAME}, {'r', FIRMWARE_VERSION},
                 {'v', FIRMWARE_VERSION}, {'m', BOARD_CORE}, {'p', BOARD_CHIP},
                 {'i', BOARD_NAME},       {'o', "ternio"}};
    struct zcbor_string format = {(const uint8_t *)"s", 1};
    struct field fields[] = {{"format", FIELD_TEXT, &format, false}};
    struct text text;
    if (!smp_read(request, fields, 1)) return SMP_EINVAL;
    for (size_t i = 0; i < format.len; i++)
        if (!format.value[i] || !strchr("snrvmpioa", format.value[i]))
            return SMP_IN_GROUP(GROUP_OS, 2);
    bool all = format.len && memchr(format.value, 'a', format.len);
    put_text_begin(out, "output", 0, &text);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!all && !(format.len && memchr(format.value, parts[i].letter, format.len))) continue;
        if (text.length) text_char(&text, ' ');
        text_put(&text, parts[i].text);
    }
    return encoded(put_text_end(out, "output", &text));
}

int group_os(const struct smp_request *request, zcbor_state_t *out) {
    switch (request->id) {
    case 0:
        return echo(request, out);
    case 5:
        if (!request->write) return SMP_ENOTSUP;
        console_ask_reset();
        return SMP_OK;
    case 6:
        return parameters(out);
    case 7:
        return application_info(request, out);
    default:
        return SMP_ENOTSUP;
    }
}

/* ---- group 2 ---- */

static bool put_counters(zcbor_state_t *out) {
    struct model_counters work = model_counters();
    struct link_counters traffic = link_counters();
    return put_u32(out, "uptime_ms", port_millis()) && put_u32(out, "infers", work.infers) &&
           put_u32(out, "steps", work.steps) && put_u32(out, "frames", traffic.frames) &&
           put_u32(out, "frame_errors", traffic.frame_errors) &&
           put_u32(out, "rx_lost", port_rx_lost()) && put_u32(out, "stack_free", port_stack_free());
}

static int read_counters(const struct smp_request *request, zcbor_state_t *out) {
    struct zcbor_string name;
    struct field fields[] = {{"name", FIELD_TEXT, &name, false}};
    if (!smp_read(request, fields, 1) || !fields[0].found) return SMP_EINVAL;
    if (!smp_equals(&name, "ternio")) return SMP_IN_GROUP(GROUP_STATS, 2);
    return encoded(put_text(out, "name", "ternio") && put_key(out, "fields") &&
                   zcbor_map_start_encode(out, 8) && put_counters(out) &&
                   zcbor_map_end_encode(out, 8));
}

int group_stats(const struct smp_request *request, zcbor_state_t *out) {
    switch (request->id) {
    case 0:
        return read_counters(request, out);
    case 1:
        return encoded(put_key(out, "stat_list") && zcbor_list_start_encode(out, 1) &&
                       zcbor_tstr_put_lit(out, "ternio") && zcbor_list_end_encode(out, 1));
    default:
        return SMP_ENOTSUP;
    }
}

/* ---- group 9 ---- */

int group_shell(const struct smp_request *request, zcbor_state_t *out) {
    char *line;
    struct field fields[] = {{"argv", FIELD_WORDS, &line, false}};
    struct text answer;
    if (request->id != 0) return SMP_ENOTSUP;
    if (!smp_read(request, fields, 1) || !fields[0].found) return SMP_EINVAL;
    put_text_begin(out, "o", AFTER_TEXT_BYTES, &answer);
    bool ok = console_run(line, &answer);
    return encoded(put_text_end(out, "o", &answer) && put_u32(out, "ret", ok ? 0 : 1));
}
