/* power_cut.h - between the test of power cuts and the flash under it: a plain one, or a chip's own
 * driver on a model of its controller. Each flash has the slots of its board_config.h. */
#ifndef POWER_CUT_H
#define POWER_CUT_H

#include <stdbool.h>
#include <stdint.h>

/* To be called before each unit that is written or erased; does not return when power goes. */
void spend(void);

/* The controller as after a reset; the content stays. */
void flash_power_up(void);

/* All of it to one value. */
void flash_fill(uint8_t value);

#endif
