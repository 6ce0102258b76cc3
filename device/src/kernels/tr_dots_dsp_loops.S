/* tr_dots_dsp_loops.S - int8 rows times int16 values for cores with the DSP extension: SXTB16
 * unpacks two bytes, SMLAD multiplies two pairs and adds both products. Called by tr_dots_dsp.c. */
#include "tr_core.h"

#if defined(TR_KERNELS_DSP)

/* \sum += four bytes of \word times the values \even (0 and 2) and \odd (1 and 3) */
    .macro FOUR_COLUMNS sum, word, even, odd
    sxtb16 r12, \word
    smlad \sum, r12, \even, \sum
    sxtb16 \word, \word, ror #8
    smlad \sum, \word, \odd, \sum
    .endm

/* void tr_dsp_dots(const int8_t *w, uint32_t pitch, const uint32_t *x, const uint32_t *x_end,
 *                  int32_t *acc, int32_t *acc_end)
 * One vector against rows, a multiple of four. x: two words for every four columns, values 0 and 2,
 * then 1 and 3; w and x_end - x of at least four columns. */
FUNCTION tr_dsp_dots
    push {r4-r11, lr}
1:  movs r4, #0
    movs r5, #0
    movs r6, #0
    movs r7, #0
    add lr, r1, r1, lsl #1
    add lr, lr, r0              /* the fourth row */
    push {r0, r2}
2:  ldrd r8, r9, [r2], #8
    ldr r10, [r0, r1]
    ldr r11, [r0, r1, lsl #1]
    FOUR_COLUMNS r5, r10, r8, r9
    FOUR_COLUMNS r6, r11, r8, r9
    ldr r10, [r0], #4
    ldr r11, [lr], #4
    FOUR_COLUMNS r4, r10, r8, r9
    FOUR_COLUMNS r7, r11, r8, r9
    cmp r2, r3
    bne 2b
    pop {r0, r2}
    ldrd r8, r9, [sp, #36]
    add r0, r0, r1, lsl #2
    stmia r8!, {r4-r7}
    str r8, [sp, #36]
    cmp r8, r9
    bne 1b
    pop {r4-r11, pc}

/* void tr_dsp_dots_pair(const int8_t *w, uint32_t pitch, const uint32_t *x, const uint32_t *x_end,
 *                       int32_t *acc, int32_t *acc_end, uint32_t acc_pitch)
 * Two vectors against rows, a multiple of two. x: four words for every four columns, of the first
 * vector and of the second; acc_pitch: bytes. */
FUNCTION tr_dsp_dots_pair
    push {r4-r11, lr}
1:  movs r4, #0
    movs r5, #0
    movs r6, #0
    movs r7, #0
    push {r0, r2}
2:  ldmia r2!, {r8-r11}
    ldr lr, [r0, r1]
    sxtb16 r12, lr
    smlad r6, r12, r8, r6
    smlad r7, r12, r10, r7
    sxtb16 lr, lr, ror #8
    smlad r6, lr, r9, r6
    smlad r7, lr, r11, r7
    ldr lr, [r0], #4
    sxtb16 r12, lr
    smlad r4, r12, r8, r4
    smlad r5, r12, r10, r5
    sxtb16 lr, lr, ror #8
    smlad r4, lr, r9, r4
    smlad r5, lr, r11, r5
    cmp r2, r3
    bne 2b
    pop {r0, r2}
    ldrd r8, r9, [sp, #36]
    ldr r10, [sp, #44]
    add r0, r0, r1, lsl #1
    add r10, r10, r8
    strd r4, r6, [r8], #8
    strd r5, r7, [r10]
    str r8, [sp, #36]
    cmp r8, r9
    bne 1b
    pop {r4-r11, pc}

/* Two rows of four columns: \first and \second, their words, become the pairs of columns 0 and 1 in
 * \pair, of columns 2 and 3 in \first. */
    .macro PAIR_ROWS pair, first, second
    pkhbt \pair, \first, \second, lsl #16
    pkhtb \first, \second, \first, asr #16
    .endm

/* void tr_dsp_mix(const int8_t *w, uint32_t pitch, const uint32_t *x, const uint32_t *x_end,
 *                 int32_t *acc)
 * Four columns of a weighted sum of rows, a multiple of two. x: a word for every two rows. */
FUNCTION tr_dsp_mix
    push {r4-r11, lr}
    movs r4, #0
    movs r5, #0
    movs r6, #0
    movs r7, #0
1:  ldr r8, [r0]
    ldr r9, [r0, r1]
    ldr r12, [r2], #4
    PAIR_ROWS r10, r8, r9
    add r0, r0, r1, lsl #1
    sxtb16 r9, r10
    smlad r4, r9, r12, r4
    sxtb16 r9, r10, ror #8
    smlad r5, r9, r12, r5
    sxtb16 r9, r8
    smlad r6, r9, r12, r6
    sxtb16 r9, r8, ror #8
    smlad r7, r9, r12, r7
    cmp r2, r3
    bne 1b
    ldr r8, [sp, #36]
    stmia r8, {r4-r7}
    pop {r4-r11, pc}

/* Two rows of two columns, at r0 + \first (", offset") and \second, against the words of two sums. */
    .macro TWO_COLUMNS first, second
    ldrh r8, [r0, \second]
    ldrh r9, [r0\first]
    ldrd r10, r11, [r2], #8
    orr r8, r9, r8, lsl #16
    sxtb16 r9, r8
    smlad r4, r9, r10, r4
    smlad r6, r9, r11, r6
    sxtb16 r9, r8, ror #8
    smlad r5, r9, r10, r5
    smlad r7, r9, r11, r7
    .endm

/* void tr_dsp_mix_pair(const int8_t *w, uint32_t pitch, const uint32_t *x, const uint32_t *x_end,
 *                      int32_t *acc, uint32_t acc_pitch)
 * Two columns of two weighted sums of rows, a multiple of two. x: two words for every two rows, of
 * the first sum and of the second; acc_pitch: bytes from one sum to the other. */
FUNCTION tr_dsp_mix_pair
    push {r4-r11, lr}
    movs r4, #0
    movs r5, #0
    movs r6, #0
    movs r7, #0
    add lr, r1, r1, lsl #1
    sub r12, r3, r2
    tst r12, #8
    beq 2f
    TWO_COLUMNS "", r1          /* an odd number of row pairs: the first alone */
    add r0, r0, r1, lsl #1
    cmp r2, r3
    beq 3f
2:  lsl r12, r1, #1
1:  TWO_COLUMNS "", r1
    TWO_COLUMNS ", r12", lr
    add r0, r0, r1, lsl #2
    cmp r2, r3
    bne 1b
3:  ldrd r8, r9, [sp, #36]
    add r9, r9, r8
    strd r4, r5, [r8]
    strd r6, r7, [r9]
    pop {r4-r11, pc}

#endif
