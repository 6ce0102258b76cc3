/* tr_core.h - which implementation of the kernels a build takes; for files in assembly also how
 * they begin and how a function does. */
#ifndef TR_CORE_H
#define TR_CORE_H

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)
#define TR_KERNELS_MVE 1
#elif defined(__ARM_FEATURE_DSP) && defined(__thumb2__)
#define TR_KERNELS_DSP 1
#elif defined(__ARM_ARCH_6M__) || defined(__ARM_ARCH_8M_BASE__)
#define TR_KERNELS_THUMB1 1
#elif defined(__x86_64__) && defined(__GNUC__)
#define TR_KERNELS_AVX2 1
#else
#define TR_KERNELS_PORTABLE 1
#endif

/* clang-format off */
#if defined(__ASSEMBLER__) && defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
    .text
#endif

#if defined(__ASSEMBLER__) && defined(__arm__)
    .syntax unified
    .thumb

    .macro FUNCTION name
    .section .text.\name, "ax"
    .balign 4
    .global \name
    .type \name, %function
    .thumb_func
\name:
    .endm
#endif
/* clang-format on */

#endif
