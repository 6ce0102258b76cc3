/* frames.c - the console's commands `every` and `frame`: a sensor's frames, one after the other. */
#include "console/answer.h"
#include "errors.h"
#include "model/model.h"
#include "model/window.h"

bool command_every(char *rest, struct text *answer) {
    int32_t hop;
    const char *word = answer_word(&rest);
    if (!word || !text_parse(word, 1, INT32_MAX, &hop))
        return answer_error(answer, "every HOP: HOP is a number of frames from 1 on", "");
    int code = window_every((uint32_t)hop);
    if (code == TR_ERR_ARGUMENT) return answer_error(answer, "longer than the window: ", word);
    return code ? answer_code(answer, code) : answer_ok(answer);
}

/* The numbers of a line are frames of `channels` values, which are read at the end of each. */
static int take_frames(char *rest, bool *due, const char **wrong) {
    uint32_t channels = model_current()->channels, count = 0;
    int16_t frame[FRAME_CHANNELS];
    int32_t value;
    if (channels > FRAME_CHANNELS) return ERR_REQUEST;
    for (char *word; (word = answer_word(&rest)) != NULL;) {
        bool now;
        if (!text_parse(word, INT16_MIN, INT16_MAX, &value)) {
            *wrong = word;
            return ERR_REQUEST;
        }
        frame[count++ % channels] = (int16_t)value;
        if (count % channels) continue;
        int code = window_frame(frame, &now);
        if (code) return code;
        *due |= now;
    }
    return count && count % channels == 0 ? 0 : ERR_REQUEST;
}

bool command_frame(char *rest, struct text *answer) {
    const char *wrong = NULL;
    struct infer_result result;
    bool due = false;
    if (!model_current()) return answer_code(answer, ERR_NO_MODEL);
    int code = take_frames(rest, &due, &wrong);
    if (wrong) return answer_error(answer, "not an int16 number: ", wrong);
    if (code == ERR_REQUEST)
        return answer_error(answer, "frame N N ...: one number for each channel", "");
    if (!code && due) code = model_infer(&result);
    if (code) return answer_code(answer, code);
    if (due) {
        answer_infer(answer, &result);
        return true;
    }
    text_put(answer, "ok ");
    text_u32(answer, window_filled());
    return true;
}
