/* power_cut_chip.h - stands for cortexm.h where a chip's flash.c is compiled for this computer: its
 * registers are those of a model. The flash lies at the chip's own address. */
#ifndef POWER_CUT_CHIP_H
#define POWER_CUT_CHIP_H

#include <stdbool.h>
#include <stdint.h>

/* A register of the controller; what was written to any of them before takes effect first. */
volatile uint32_t *chip_register(uint32_t address);

#define REG(address) (*chip_register(address))
#define __asm                                                                                      \
    if (0) __asm

#endif
