/* tr_kernels_thumb1_loops.S - inner loops of the ternary kernels for cores without multiply-accumulate
 * or 32-bit Thumb (Cortex-M0, M0+, M23): sums come from tables. Called by tr_kernels_thumb1.c. */
#include "tr_core.h"

#if defined(TR_KERNELS_THUMB1)

/* ---- tables ----
 * Both products use tables of 171 words indexed by four trits: entry c = c0 + 4 c1 + 16 c2 + 64 c3,
 * c_k in 0..2, holds base - c0 v0 - c1 v1 - c2 v2 - c3 v3. Three neighbours (c0 = 0, 1, 2) are kept
 * in r1, r2, r3 and stored with one word of padding, which is the place of c0 = 3. Steps: r4 to the
 * next c1, r5 from c1 = 2 to c1 = 0 of the next c2, r6 to the next c3. */

/* In: r7 = base, r3..r6 = v0..v3. Out: what FILL_TABLE needs. */
    .macro START_TABLE
    adds r1, r4, r4         /* 2 v1 */
    subs r2, r1, r5         /* r5 to be: 2 v1 - v2 */
    adds r5, r5, r5
    adds r1, r1, r5
    subs r6, r1, r6         /* 2 v1 + 2 v2 - v3 */
    movs r5, r2
    rsbs r4, r4, #0         /* -v1 */
    movs r1, r7
    subs r2, r1, r3
    subs r3, r2, r3
    .endm

    .macro STEP by
    adds r1, r1, \by
    adds r2, r2, \by
    adds r3, r3, \by
    .endm

/* Nine neighbours: one c2, all c1. */
    .macro FILL_9
    stmia r0!, {r1-r4}
    STEP r4
    stmia r0!, {r1-r4}
    STEP r4
    stmia r0!, {r1-r4}
    .endm

    .macro FILL_27
    FILL_9
    STEP r5
    adds r0, #16
    FILL_9
    STEP r5
    adds r0, #16
    FILL_9
    .endm

/* Writes 172 words at r0, the last one garbage. */
    .macro FILL_TABLE
    FILL_27
    STEP r6
    adds r0, #80
    FILL_27
    STEP r6
    adds r0, #80
    FILL_27
    .endm

/* ---- forward ---- */

/* Loads the activations of bytes b and b + 1 for the next field, as x[b] + (x[b + 1] << 16).
 * r1: address less pitch, moves on; r2: pitch. */
    .macro LOAD_PAIR into
    ldrsh \into, [r1, r2]
    adds r1, r1, r2
    sxtb r7, \into
    asrs \into, \into, #8
    lsls \into, \into, #16
    adds \into, \into, r7
    .endm

/* void tr_thumb1_fill(int32_t *acc, uint32_t rows, int32_t value): acc[rows] = value, rows a multiple
 * of 8, not 0. */
FUNCTION tr_thumb1_fill
    push {r4, lr}
    movs r3, r2
    movs r4, r2
1:  stmia r0!, {r2-r4}
    stmia r0!, {r2-r4}
    stmia r0!, {r2-r3}
    subs r1, #8
    bne 1b
    pop {r4, pc}

/* void tr_thumb1_table(uint32_t *table, const int8_t *x, uint32_t pitch)
 * The sums of byte x and of byte x + 1, side by side in a word, each 512 + sum of (1 - c_k) x_k:
 * 512 keeps both positive (|sum| <= 4 * 127), so that one addition serves both halves. */
FUNCTION tr_thumb1_table
    push {r4-r7, lr}
    subs r1, r1, r2
    LOAD_PAIR r3
    LOAD_PAIR r4
    LOAD_PAIR r5
    LOAD_PAIR r6
    ldr r7, =0x02000200
    adds r7, r7, r3
    adds r7, r7, r4
    adds r7, r7, r5
    adds r7, r7, r6
    START_TABLE
    FILL_TABLE
    pop {r4-r7, pc}
    .ltorg

/* r3 += the sum that byte \at of the row selects. */
    .macro LOOK_UP at, table
    ldrb r2, [r0, #\at]
    lsls r2, r2, #2
    ldrh r2, [\table, r2]
    adds r3, r3, r2
    .endm

/* One row, four bytes (16 columns): four look-ups around one load and store of the row's sum. */
    .macro ROW at
    ldr r3, [r1]
    LOOK_UP \at, r4
    LOOK_UP \at + 1, r5
    LOOK_UP \at + 2, r6
    LOOK_UP \at + 3, r7
    stmia r1!, {r3}
    .endm

    .macro LOOK_UP_ENTER
    push {r4-r7, lr}
    mov r4, r8
    mov r5, r9
    push {r4, r5}
    movs r4, r1
    movs r1, r2
    lsls r3, r3, #2
    adds r3, r3, r1
    mov r8, r3              /* end of the sums */
    adds r5, r4, #2
    ldr r6, =684            /* bytes of a table */
    adds r6, r6, r4
    adds r7, r6, #2
    .endm

    .macro LOOK_UP_LEAVE
    pop {r4, r5}
    mov r8, r4
    mov r9, r5
    pop {r4-r7, pc}
    .ltorg
    .endm

/* void tr_thumb1_rows16(const uint8_t *w, const uint32_t *tables, int32_t *acc, uint32_t rows)
 * Adds what four bytes of each row select from two tables (four sums); rows, a multiple of 8, are
 * 16 bytes apart. */
FUNCTION tr_thumb1_rows16
    LOOK_UP_ENTER
1:  .rept 4
    ROW 0
    ROW 16
    adds r0, #32
    .endr
    cmp r1, r8
    beq 2f
    b 1b
2:  LOOK_UP_LEAVE

/* void tr_thumb1_rows(const uint8_t *w, const uint32_t *tables, int32_t *acc, uint32_t rows,
 *                     uint32_t pitch)
 * The same with rows `pitch` bytes apart. */
FUNCTION tr_thumb1_rows
    LOOK_UP_ENTER
    ldr r3, [sp, #28]       /* behind seven saved registers */
    mov r9, r3
1:  .rept 4
    ROW 0
    add r0, r9
    .endr
    cmp r1, r8
    bne 1b
    LOOK_UP_LEAVE

/* ---- transposed ---- */

/* Swaps the fields of \a and \b under the mask r7 (\b's) and \bits above it (\a's). */
    .macro SWAP a, b, bits
    lsrs r6, \a, #\bits
    eors r6, r6, \b
    ands r6, r6, r7
    eors \b, \b, r6
    lsls r6, r6, #\bits
    eors \a, \a, r6
    .endm

/* Adds the sums that the four bytes of \codes select to four columns; r0 moves on. */
    .macro ADD_BYTE codes, shift, by
    \shift r6, \codes, #\by
    ands r6, r6, r7
    ldr r6, [r1, r6]
    ldr r5, [r0]
    adds r5, r5, r6
    stmia r0!, {r5}
    .endm

    .macro ADD_FIELD codes
    ADD_BYTE \codes, lsls, 2
    ADD_BYTE \codes, lsrs, 6
    ADD_BYTE \codes, lsrs, 14
    ADD_BYTE \codes, lsrs, 22
    .endm

/* void tr_thumb1_columns(const uint8_t *panel, const int16_t *e, int32_t *sums, uint32_t *table,
 *                        const int16_t *end, uint32_t pitch)
 * Adds the products of all rows, with errors e .. end, to the columns of a panel, which are kept in
 * the order [word of a row][field][byte of the word]. Four rows at a time: a table of the sums of
 * (1 - c_k) e_k, exact int32; then, word by word, the 4 x 4 trits of each byte of the four rows are
 * transposed, so that a byte holds the trits of four rows of one column and selects its sum. */
    .equ AT_E, 0
    .equ AT_SUMS, 4
    .equ AT_TABLE, 8
    .equ AT_END, 44         /* behind three words and eight saved registers */
    .equ AT_PITCH, 48
FUNCTION tr_thumb1_columns
    push {r4-r7, lr}
    mov r4, r8
    mov r5, r9
    mov r6, r10
    push {r4-r6}
    push {r1-r3}
    ldr r3, [sp, #AT_PITCH]
    mov r8, r0              /* next word of the first row */
    mov r10, r3             /* pitch */
1:  ldr r1, [sp, #AT_E]
    ldr r0, [sp, #AT_TABLE]
    movs r2, #2
    movs r5, #4
    movs r6, #6
    ldrsh r4, [r1, r2]
    ldrsh r5, [r1, r5]
    ldrsh r6, [r1, r6]
    movs r2, #0
    ldrsh r3, [r1, r2]
    adds r1, #8
    str r1, [sp, #AT_E]
    adds r7, r3, r4
    adds r7, r7, r5
    adds r7, r7, r6
    START_TABLE
    FILL_TABLE
    ldr r1, [sp, #AT_TABLE]
    ldr r0, [sp, #AT_SUMS]
    mov r3, r10
    add r3, r8
    mov r12, r3             /* end of the first row */
2:  mov r6, r8              /* a word of each of the four rows */
    mov r7, r10
    ldmia r6!, {r2}
    mov r8, r6
    adds r6, r6, r7
    subs r6, #4
    ldr r3, [r6]
    ldr r4, [r6, r7]
    adds r6, r6, r7
    ldr r5, [r6, r7]
    ldr r7, =0x33333333     /* fields 1, 3 of rows 0, 2 against fields 0, 2 of rows 1, 3 */
    SWAP r2, r3, 2
    SWAP r4, r5, 2
    ldr r7, =0x0F0F0F0F     /* fields 2, 3 of rows 0, 1 against fields 0, 1 of rows 2, 3 */
    SWAP r2, r4, 4
    SWAP r3, r5, 4
    ldr r7, =0x3FC          /* a byte, times 4 */
    mov r9, r5              /* for the sum */
    ADD_FIELD r2
    ADD_FIELD r3
    ADD_FIELD r4
    mov r2, r9
    ADD_FIELD r2
    cmp r8, r12
    beq 3f
    b 2b
3:  add r8, r10             /* over the other three rows */
    add r8, r10
    add r8, r10
    ldr r0, [sp, #AT_E]
    ldr r1, [sp, #AT_END]
    cmp r0, r1
    beq 4f
    b 1b
4:  add sp, #12
    pop {r4-r6}
    mov r8, r4
    mov r9, r5
    mov r10, r6
    pop {r4-r7, pc}
    .ltorg

/* ---- quantising ---- */

/* void *NAME(void *q, const float *x, const float *end, const uint32_t parameters[3])
 * q = x * factor, rounded to float and then to an integer, half to even. parameters: high 16 and low
 * 8 bits of the factor's 24-bit significand; 276 less its exponent field. With the significand m of
 * x, the product m * factor is formed to 32 bits and shifted to 8 bits behind the point. Rounding to
 * float moves that by at most half of its last bit, so it decides nothing unless the 8 bits are 127
 * or 128: there the loop stops. Returns the place in q behind the last result. */
    .macro QUANTIZE name, store, bytes
FUNCTION \name
    push {r4-r7, lr}
    mov r4, r8
    mov r5, r9
    mov r6, r10
    push {r4-r6}
    mov r8, r2              /* end */
    ldmia r3!, {r6, r7}
    ldr r4, [r3]
    mov r9, r4
    movs r4, #0x80
    lsls r4, r4, #8
    mov r10, r4             /* top bit of a 16-bit significand */
1:  ldmia r1!, {r2}
    lsls r3, r2, #9
    lsrs r3, r3, #17
    add r3, r10             /* m, high 16 bits */
    uxtb r5, r2             /* low 8 bits */
    muls r5, r6, r5
    movs r4, r3
    muls r4, r7, r4
    adds r4, r4, r5
    lsrs r4, r4, #8
    muls r3, r6, r3
    adds r3, r3, r4         /* product >> 16 */
    lsls r4, r2, #1
    lsrs r4, r4, #24
    mov r5, r9
    subs r5, r5, r4
    lsrs r3, r3, r5         /* 0 for zero and for small numbers: they shift by 32 to 255 */
    uxtb r4, r3
    subs r4, #127
    cmp r4, #1
    bls 2f
    adds r3, #128
    lsrs r3, r3, #8
    asrs r2, r2, #31
    eors r3, r3, r2
    subs r3, r3, r2
    \store r3, [r0]
    adds r0, #\bytes
    cmp r1, r8
    bne 1b
2:  pop {r4-r6}
    mov r8, r4
    mov r9, r5
    mov r10, r6
    pop {r4-r7, pc}
    .endm

    QUANTIZE tr_thumb1_quantize8, strb, 1
    QUANTIZE tr_thumb1_quantize16, strh, 2

/* ---- scaling ---- */

/* How far to shift a byte to the left until its top bit is set. */
    .section .rodata.tr_thumb1_shift, "a"
tr_thumb1_shift:
    .byte 8, 7, 6, 6, 5, 5, 5, 5
    .fill 8, 1, 4
    .fill 16, 1, 3
    .fill 32, 1, 2
    .fill 64, 1, 1
    .fill 128, 1, 0

/* void *tr_thumb1_scale(void *values, void *end, uint32_t scale)
 * Replaces int32 by float: a * scale, rounded half to even, with |a| = a, m = the scale's 24-bit
 * significand and the product formed in 16 x 16 and 16 x 8 bits. scale: the bits of a normal
 * positive float from which 2^24 times as much is finite. Stops at |a| >= 2^24; returns where. */
FUNCTION tr_thumb1_scale
    push {r4-r7, lr}
    mov r4, r8
    mov r5, r9
    mov r6, r10
    push {r4-r6}
    mov r8, r1              /* end */
    lsrs r3, r2, #23
    adds r3, #15
    lsls r3, r3, #23
    mov r10, r3             /* exponent of a 16-bit a times m, less the significand's top bit */
    uxtb r6, r2             /* m, low 8 bits */
    lsls r1, r2, #9
    lsrs r1, r1, #17
    movs r3, #0x80
    lsls r3, r3, #8
    orrs r1, r1, r3         /* m, high 16 bits */
    ldr r7, =tr_thumb1_shift
    cmp r0, r8
    beq 9f

1:  ldr r2, [r0]
    asrs r3, r2, #31
    eors r2, r2, r3
    subs r2, r2, r3         /* a, and the sign in r3 */
    lsrs r4, r2, #8
    beq 6f
    lsrs r5, r4, #8
    bne 7f
    ldrb r5, [r7, r4]
2:  lsls r3, r3, #8         /* shift and sign in one register; lsls below looks at 8 bits */
    adds r5, r5, r3
    lsls r2, r2, r5         /* a in [2^15, 2^16) */
    movs r4, r2
    muls r4, r6, r4
    muls r2, r1, r2
    lsrs r3, r4, #8
    adds r2, r2, r3         /* product >> 8 in [2^30, 2^32); what is left of it: r4's low byte */
3:  bmi 4f
    lsls r2, r2, #1         /* the bit shifted in is 0, the rest in r4 still says "above a tie" */
    adds r5, #1
4:  lsrs r3, r2, #8         /* 24 bits; carry: the half */
    bcc 5f
    lsls r2, r2, #25
    lsls r4, r4, #24
    orrs r2, r2, r4
    beq 8f
    adds r3, #1
5:  lsls r5, r5, #23
    subs r3, r3, r5
    add r3, r10
    stmia r0!, {r3}
    cmp r0, r8
    bne 1b
9:  pop {r4-r6}
    mov r8, r4
    mov r9, r5
    mov r10, r6
    pop {r4-r7, pc}

6:  ldrb r5, [r7, r2]       /* a below 2^8 */
    adds r5, #8
    cmp r2, #0
    bne 2b
    stmia r0!, {r2}
    cmp r0, r8
    bne 1b
    b 9b

7:  lsrs r4, r5, #8         /* a from 2^16: 8 more bits of it, r3 below */
    bne 9b
    ldrb r5, [r7, r5]
    lsls r3, r3, #8
    adds r5, r5, r3
    lsls r2, r2, r5
    subs r5, #8
    mov r9, r5
    uxtb r3, r2
    lsrs r2, r2, #8
    movs r5, r3
    muls r5, r6, r5         /* weight 2^0 */
    muls r3, r1, r3         /* weight 2^8, as the two that are added to it */
    lsrs r4, r5, #8
    adds r3, r3, r4
    movs r4, r2
    muls r4, r6, r4
    adds r3, r3, r4
    muls r2, r1, r2         /* weight 2^16 */
    lsrs r4, r3, #8
    orrs r5, r5, r3         /* bits below */
    adds r2, r2, r4
    movs r4, r5
    mov r5, r9
    cmp r2, #0
    b 3b

8:  movs r4, #1             /* a tie: to the even neighbour */
    ands r4, r4, r3
    adds r3, r3, r4
    b 5b
    .ltorg

#endif
