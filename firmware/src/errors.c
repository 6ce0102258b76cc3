/* errors.c - see errors.h. */
#include "errors.h"

const char *error_text(int code) {
    static const char *const texts[] = {
        [ERR_NO_MODEL - 64] = "no model on this board",
        [ERR_REQUEST - 64] = "wrong or missing argument",
        [ERR_WINDOW - 64] = "window incomplete",
        [ERR_STORAGE - 64] = "storage cannot be written",
        [ERR_TOO_LARGE - 64] = "too large for a slot of this board",
        [ERR_NO_ADAPTER - 64] = "no adapter",
        [ERR_ARENA - 64] = "arena of this board too small for the model",
        [ERR_WORK - 64] = "one run of this program takes too long on this board",
        [ERR_CHARACTER - 64] = "a character that the model does not know",
    };
    if (code < 64) return tr_status_text((tr_status)code);
    if (code - 64 < (int)(sizeof texts / sizeof *texts)) return texts[code - 64];
    return "unknown error";
}
