/* window.h - the input of a model of windows: written in parts, or kept up to date frame by frame
 * as the last `length` frames of a sensor. Codes are those of errors.h. */
#ifndef WINDOW_H
#define WINDOW_H

#include <stdbool.h>
#include <stdint.h>

/* Most channels that a frame may have. */
#define FRAME_CHANNELS 64u

/* Elements filled so far, from the first one on, of channels * length; both are 0 without a model
 * of windows. */
uint32_t window_filled(void);
uint32_t window_length(void);

/* Writes `count` elements from `first` on; int8 elements (`narrow`) become 256 times their value.
 * Writing at 0 starts a new window; a gap is refused with ERR_WINDOW, elements beyond the window
 * with ERR_REQUEST. */
int window_write(uint32_t first, const uint8_t *little_endian, uint32_t count, bool narrow);

/* Starts a ring of frames: a window is due when it is full, and then every `hop` frames. */
int window_every(uint32_t hop);

/* Takes one frame of int16 [channels]; starts a ring of whole windows when there is none. */
int window_frame(const int16_t *frame, bool *due);

/* Oldest frame first, as programs read it. */
void window_straighten(void);

/* Empties it: another model. */
void window_forget(void);

#endif
