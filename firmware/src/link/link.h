/* link.h - the serial port's two conversations: takes received bytes apart into text lines and SMP
 * frames. */
#ifndef LINK_H
#define LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct link_counters {
    uint32_t frames, frame_errors;
};

/* Takes received bytes; runs each line or frame as it becomes complete, and answers. */
void link_receive(const uint8_t *bytes, size_t count);

struct link_counters link_counters(void);

/* Whether somebody is waiting: work of many steps should end at the next one. True when Ctrl-C or
 * the beginning of a frame has arrived, or as much as the board can hold. */
bool link_interrupted(void);

#endif
