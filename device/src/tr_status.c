/* tr_status.c - one line of text per status. */
#include "tr.h"

const char *tr_status_text(tr_status status) {
    static const char *const texts[TR_STATUS_COUNT] = {
        [TR_OK] = "ok",
        [TR_ERR_ARGUMENT] = "an argument is missing or does not fit the model",
        [TR_ERR_ALIGNMENT] = "blob, adapter and arena must start at a multiple of 16 bytes",
        [TR_ERR_TRUNCATED] = "the file is shorter than its header says",
        [TR_ERR_MAGIC] = "not a ternio file of this kind",
        [TR_ERR_VERSION] = "a format version that this runtime does not read",
        [TR_ERR_CHECKSUM] = "CRC-32 does not match: the file is damaged",
        [TR_ERR_DIGEST] = "SHA-256 does not match: the file is damaged or forged",
        [TR_ERR_HEADER] = "a header field is impossible",
        [TR_ERR_SECTION] = "a section is missing, misplaced or malformed",
        [TR_ERR_TENSOR] = "a tensor's entry or data is impossible",
        [TR_ERR_ADAPTER] = "an entry of the adapter directory is impossible",
        [TR_ERR_OPCODE] = "an instruction that this runtime or this program does not have",
        [TR_ERR_OPERAND] = "an instruction's dimensions or operands do not fit",
        [TR_ERR_ARENA] = "the arena is smaller than the model needs",
        [TR_ERR_NO_ADAPT] = "the model was packed without an adapt program",
        [TR_ERR_MISMATCH] = "the adapter belongs to another model",
        [TR_ERR_STATE] = "called out of order: nothing is being adapted or attached",
        [TR_ERR_VALUE] = "a number is not finite or out of range",
        [TR_ERR_KIND] = "a window for a model of tokens, or a token for a model of windows",
        [TR_ERR_CONTEXT] = "the context is full: reset the stream, and go on from its last half",
    };
    return (unsigned)status < TR_STATUS_COUNT ? texts[status] : "unknown status";
}
