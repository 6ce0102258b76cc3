/* tr_kernels_dsp_loops.S - inner loops of the ternary kernels for cores with the DSP extension
 * (Cortex-M4, M7, M33): SMLAD multiplies two pairs of 16-bit lanes and adds both products. Called by
 * tr_kernels_dsp.c, which has the same in C for narrow panels. With them the loops of tr_kernels.h
 * over floats, for cores that have those. */
#include "tr_core.h"

#if defined(TR_KERNELS_DSP)

/* ---- forward ---- */

/* Merges a word of an even row (c = 1 - w in 2-bit fields) with the same word of an odd row, so that
 * under the mask 0xC003C003, rotated, each 16-bit lane holds c_even + (w_odd << 14). Out: \even for
 * the fields 0, 2, \odd, rotated by 18, for the fields 1, 3. */
    .macro MERGE even, odd
    eor \odd, \odd, #0x55555555 /* 1 - w becomes w in two's complement */
    eor r8, \even, \odd, ror #18
    and r8, r8, #0xCCCCCCCC
    eor \even, \even, r8
    eor \odd, r8, \odd, ror #18
    .endm

/* \sum += lanes of \word at four rotations x the four activation pairs in r4-r7 */
    .macro MULTIPLY_4 sum, word, rotation
    and r8, lr, \word, ror #\rotation
    smlad \sum, r8, r4, \sum
    and r8, lr, \word, ror #\rotation + 4
    smlad \sum, r8, r5, \sum
    and r8, lr, \word, ror #\rotation + 8
    smlad \sum, r8, r6, \sum
    and r8, lr, \word, ror #\rotation + 12
    smlad \sum, r8, r7, \sum
    .endm

/* The same from rotation 0, which has no encoding of its own. */
    .macro MULTIPLY_4_FROM_0 sum, word
    and r8, lr, \word
    smlad \sum, r8, r4, \sum
    and r8, lr, \word, ror #4
    smlad \sum, r8, r5, \sum
    and r8, lr, \word, ror #8
    smlad \sum, r8, r6, \sum
    and r8, lr, \word, ror #12
    smlad \sum, r8, r7, \sum
    .endm

/* Splits a sum into its two rows: the low 14 bits, signed, are minus the even row's product, the
 * rest is the odd row's. Both are added to what r12 points at. */
    .macro SPLIT sum
    ldrd r4, r5, [r12]
    sbfx r8, \sum, #0, #14
    sub \sum, \sum, r8
    sub r4, r4, r8
    add r5, r5, \sum, asr #14
    strd r4, r5, [r12], #8
    .endm

/* void tr_dsp_rows(const uint8_t *w, const uint32_t *pairs, int32_t *acc, const uint8_t *end,
 *                  uint32_t start)
 * Adds a full panel's products to the sums of the rows w .. end, a multiple of four rows of 16
 * bytes; w is 16-byte aligned, so its low bits count the words of a row. pairs: the 64 activations
 * as `spread` lays them out; start: minus their sum. */
FUNCTION tr_dsp_rows
    push {r2-r11, lr}           /* [sp]: acc, [sp, #4]: end */
    movw lr, #0xC003
    movt lr, #0xC003
1:  ldr r2, [sp, #44]
    mov r3, r2
2:  ldr r10, [r0, #16]          /* 16 columns of four rows */
    ldr r11, [r0, #32]
    ldr r12, [r0, #48]
    ldr r9, [r0], #4
    MERGE r9, r10
    MERGE r11, r12
    ldmia r1!, {r4-r7}
    MULTIPLY_4_FROM_0 r2, r9
    MULTIPLY_4_FROM_0 r3, r11
    ldmia r1!, {r4-r7}
    MULTIPLY_4 r2, r10, 2
    MULTIPLY_4 r3, r12, 2
    tst r0, #15
    bne 2b
    ldr r12, [sp]
    subs r1, #128
    SPLIT r2
    SPLIT r3
    str r12, [sp]
    ldr r4, [sp, #4]
    adds r0, #48
    cmp r0, r4
    bne 1b
    pop {r2-r11, pc}

/* \multiply of four words of rows two apart into the four sums: that of the first row, and from
 * r0 + \second on those of the others. */
    .macro EIGHT_MERGED first, second, multiply, rotation
    ldmia r1!, {r4-r7}
    ldr r9, \first
    \multiply r2, r9 \rotation
    ldr r9, [r0, #\second]
    \multiply r3, r9 \rotation
    ldr r9, [r0, #32 + \second]
    \multiply r10, r9 \rotation
    ldr r9, [r0, #64 + \second]
    \multiply r11, r9 \rotation
    .endm

/* void tr_dsp_merged_rows(the arguments of tr_dsp_rows)
 * The same for a panel in the layout WD, whose words are merged already: fields 0, 2 in the even
 * rows' words, 1, 3 in the odd rows'. Rows are a multiple of eight. */
FUNCTION tr_dsp_merged_rows
    push {r2-r11, lr}           /* [sp]: acc, [sp, #4]: end */
    movw lr, #0xC003
    movt lr, #0xC003
1:  ldr r2, [sp, #44]
    mov r3, r2
    mov r10, r2
    mov r11, r2
2:  EIGHT_MERGED "[r0], #4", 28, MULTIPLY_4_FROM_0
    EIGHT_MERGED "[r0, #12]", 44, MULTIPLY_4, ", 2"
    tst r0, #15
    bne 2b
    ldr r12, [sp]
    subs r1, #128
    SPLIT r2
    SPLIT r3
    SPLIT r10
    SPLIT r11
    str r12, [sp]
    ldr r4, [sp, #4]
    adds r0, #112
    cmp r0, r4
    bne 1b
    pop {r2-r11, pc}

/* Two words of four activations as four pairs to r2, and minus their sum to r12. */
    .macro SPREAD_8
    sxtb16 r6, r4, ror #8
    sxtb16 r7, r5, ror #8
    sxtb16 r4, r4
    sxtb16 r5, r5
    smlad r12, r6, lr, r12
    smlad r12, r7, lr, r12
    smlad r12, r4, lr, r12
    smlad r12, r5, lr, r12
    stmia r2!, {r4-r7}
    .endm

/* uint32_t tr_dsp_spread(const int8_t *x, uint32_t pitch, uint32_t *pairs): see tr_kernels_dsp.c. */
FUNCTION tr_dsp_spread
    push {r4-r8, lr}
    add r3, r0, r1              /* end of the first field */
    add r8, r1, r1, lsl #1
    mov lr, #0xFFFFFFFF
    movs r12, #0
1:  ldr r4, [r0]
    ldr r5, [r0, r1, lsl #1]
    SPREAD_8
    ldr r4, [r0, r1]
    ldr r5, [r0, r8]
    SPREAD_8
    adds r0, #4
    cmp r0, r3
    bne 1b
    mov r0, r12
    pop {r4-r8, pc}

/* void tr_dsp_zero(int32_t *acc, uint32_t n): four at a time, then one. */
FUNCTION tr_dsp_zero
    push {r4, r5}
    movs r2, #0
    movs r3, #0
    movs r4, #0
    movs r5, #0
    subs r1, #4
    blo 2f
1:  stmia r0!, {r2-r5}
    subs r1, #4
    bhs 1b
2:  adds r1, #4
    beq 4f
3:  str r2, [r0], #4
    subs r1, #1
    bne 3b
4:  pop {r4, r5}
    bx lr

/* ---- quantising and scaling: four at a time, then one ---- */

#if defined(__ARM_PCS_VFP)
/* Compares the bits of |x| in \size, doubled to lose the sign, with the largest so far. */
    .macro LARGER size, label
    cmp r2, \size, lsl #1
    blo 1\label\()f
2\label:
    .endm

    .macro TAKE size, label
1\label:
    lsl r2, \size, #1
    b 2\label\()b
    .endm

/* float tr_kernel_largest(const float *x, uint32_t n, float floor)
 * Few are larger than all before them. */
FUNCTION tr_kernel_largest
    push {r4, lr}
    vmov r2, s0
    lsls r2, r2, #1
    subs r1, #4
    blo 6f
5:  ldmia r0!, {r3, r4, r12, lr}
    LARGER r3, 1
    LARGER r4, 2
    LARGER r12, 3
    LARGER lr, 4
    subs r1, #4
    bhs 5b
6:  adds r1, #4
    beq 8f
7:  ldr r3, [r0], #4
    LARGER r3, 5
    subs r1, #1
    bne 7b
8:  lsrs r2, r2, #1
    vmov s0, r2
    pop {r4, pc}
    TAKE r3, 1
    TAKE r4, 2
    TAKE r12, 3
    TAKE lr, 4
    TAKE r3, 5

/* void NAME(void *q, const float *x, uint32_t n, float factor); VCVTR rounds half to even. */
    .macro QUANTIZE name, store, bytes
FUNCTION \name
    push {r4, lr}
    subs r2, #4
    blo 2f
1:  vldmia r1!, {s4-s7}
    vmul.f32 s4, s4, s0
    vmul.f32 s5, s5, s0
    vmul.f32 s6, s6, s0
    vmul.f32 s7, s7, s0
    vcvtr.s32.f32 s4, s4
    vcvtr.s32.f32 s5, s5
    vcvtr.s32.f32 s6, s6
    vcvtr.s32.f32 s7, s7
    vmov r3, r4, s4, s5
    vmov r12, lr, s6, s7
    \store r3, [r0], #\bytes
    \store r4, [r0], #\bytes
    \store r12, [r0], #\bytes
    \store lr, [r0], #\bytes
    subs r2, #4
    bhs 1b
2:  adds r2, #4
    beq 4f
3:  vldmia r1!, {s4}
    vmul.f32 s4, s4, s0
    vcvtr.s32.f32 s4, s4
    vmov r3, s4
    \store r3, [r0], #\bytes
    subs r2, #1
    bne 3b
4:  pop {r4, pc}
    .endm

    QUANTIZE tr_kernel_quantize8, strb, 1
    QUANTIZE tr_kernel_quantize16, strh, 2

/* void tr_kernel_scale(float *dst, const int32_t *sums, uint32_t n, float scale) */
FUNCTION tr_kernel_scale
    subs r2, #4
    blo 2f
1:  vldmia r1!, {s4-s7}
    vcvt.f32.s32 s4, s4
    vcvt.f32.s32 s5, s5
    vcvt.f32.s32 s6, s6
    vcvt.f32.s32 s7, s7
    vmul.f32 s4, s4, s0
    vmul.f32 s5, s5, s0
    vmul.f32 s6, s6, s0
    vmul.f32 s7, s7, s0
    vstmia r0!, {s4-s7}
    subs r2, #4
    bhs 1b
2:  adds r2, #4
    beq 4f
3:  vldmia r1!, {s4}
    vcvt.f32.s32 s4, s4
    vmul.f32 s4, s4, s0
    vstmia r0!, {s4}
    subs r2, #1
    bne 3b
4:  bx lr
#endif

/* ---- transposed ---- */

/* Two rows of eight columns: their codes c = 1 - w side by side in 16-bit lanes, against the two
 * errors of the rows. */
    .macro TWO_ROWS pair, pitch
    ldrh r12, [r0, #2 * \pitch * \pair]
    ldrh r2, [r0, #2 * \pitch * \pair + \pitch]
    ldr r3, [r1], #4
    orr r12, r12, r2, lsl #16
    and r2, lr, r12
    smlad r4, r2, r3, r4
    and r2, lr, r12, ror #2
    smlad r5, r2, r3, r5
    and r2, lr, r12, ror #4
    smlad r6, r2, r3, r6
    and r2, lr, r12, ror #6
    smlad r7, r2, r3, r7
    and r2, lr, r12, ror #8
    smlad r8, r2, r3, r8
    and r2, lr, r12, ror #10
    smlad r9, r2, r3, r9
    and r2, lr, r12, ror #12
    smlad r10, r2, r3, r10
    and r2, lr, r12, ror #14
    smlad r11, r2, r3, r11
    .endm

/* Column sums of the fields \field of both bytes, sum of (1 - c) e = -(-sum of e + sum of c e). */
    .macro STORE_FIELD field, first, second, pitch
    rsbs \first, \first, #0
    rsb \second, \second, #0
    strd \first, \second, [r2, #4 * \pitch * \field]
    .endm

/* void NAME(const uint8_t *w, const int16_t *e, int32_t *acc, const int16_t *end, uint32_t start)
 * Sums of the eight columns in bytes w, w + 1 of a panel whose rows have \pitch bytes; e .. end:
 * errors, a multiple of 8; start: minus their sum. Sums wrap on the way and are exact at the end. */
    .macro COLUMNS name, pitch, pairs
FUNCTION \name
    push {r2-r11, lr}           /* [sp]: acc, [sp, #4]: end */
    mov lr, #0x00030003
    ldr r4, [sp, #44]
    mov r5, r4
    mov r6, r4
    mov r7, r4
    mov r8, r4
    mov r9, r4
    mov r10, r4
    mov r11, r4
1:  .set pair, 0
    .rept \pairs
    TWO_ROWS pair, \pitch
    .set pair, pair + 1
    .endr
    ldr r12, [sp, #4]
    adds r0, #2 * \pitch * \pairs
    cmp r1, r12
    bne 1b
    ldr r2, [sp]
    STORE_FIELD 0, r4, r8, \pitch
    STORE_FIELD 1, r5, r9, \pitch
    STORE_FIELD 2, r6, r10, \pitch
    STORE_FIELD 3, r7, r11, \pitch
    pop {r2-r11, pc}
    .endm

    COLUMNS tr_dsp_columns_4, 4, 1
    COLUMNS tr_dsp_columns_8, 8, 1
    COLUMNS tr_dsp_columns_12, 12, 1
    COLUMNS tr_dsp_columns_16, 16, 4

#endif
