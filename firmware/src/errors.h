/* errors.h - one number per thing that can go wrong with a model: tr_status below 64, the
 * firmware's own from 64 on. They are the error codes of SMP group 64 (PROTOCOL.md). */
#ifndef ERRORS_H
#define ERRORS_H

#include "tr.h"

enum error_code {
    ERR_NO_MODEL = 64,
    ERR_REQUEST = 65,
    ERR_WINDOW = 66,
    ERR_STORAGE = 67,
    ERR_TOO_LARGE = 68,
    ERR_NO_ADAPTER = 69,
    ERR_ARENA = 70,
    ERR_WORK = 71,
    ERR_CHARACTER = 72,
};

/* One line of text for a code of either range. */
const char *error_text(int code);

#endif
