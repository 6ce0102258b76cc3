/* tr_kernels_mve_loops.S - inner loop of the transposed ternary product for cores with MVE (Cortex-M55, M85),
 * called by tr_kernels_mve.c. In assembly because it keeps eight sums in registers, loads and
 * stores them with one instruction each, and leaves the loop counter none. */
#include "tr_core.h"

#if defined(TR_KERNELS_MVE)

/* 16 rows, one byte (four columns) of each: gathers the bytes, and adds to the sums of field k the
 * products of (byte >> 2k) with the errors' low bytes (\low, unsigned) and high bytes (\high,
 * signed). Only field 0 is masked: field k's sums also hold 4^j times those of field k + j, which
 * the caller takes out. */
    .macro SIXTEEN_ROWS base, low, high
    vldrb.u8 q4, [\base, q7]
    vand q5, q4, q6
    vmladava.u8 r0, q5, \low
    vmladava.s8 r2, q5, \high
    vshr.u8 q5, q4, #2
    vmladava.u8 r4, q5, \low
    vmladava.s8 r6, q5, \high
    vshr.u8 q5, q4, #4
    vmladava.u8 r8, q5, \low
    vmladava.s8 r10, q5, \high
    vshr.u8 q4, q4, #6
    vmladava.u8 r12, q4, \low
    vmladava.s8 lr, q4, \high
    .endm

/* void tr_mve_columns(const uint8_t *w, const int16_t *e, uint32_t *sums, const uint8_t *offsets,
 *                     uint32_t pitch, uint32_t second, uint32_t blocks)
 * Blocks of 32 rows: rows at w + offsets[0..15] with errors e[0..15], rows at w + second +
 * offsets[0..15] with errors e[16..31]. sums: [pitch][field][low, high]. */
    .equ AT_W, 0
    .equ AT_E, 4
    .equ AT_SUMS, 8
    .equ AT_OFFSETS, 12
    .equ AT_PITCH, 116          /* behind four words, 64 bytes of q4-q7, nine registers */
    .equ AT_SECOND, 120
    .equ AT_BLOCKS, 124
FUNCTION tr_mve_columns
    push {r4-r11, lr}
    vpush {d8-d15}
    push {r0-r3}
    vmov.i8 q6, #3
1:  ldrd r1, r3, [sp, #AT_W]
    ldrd r5, r9, [sp, #AT_SUMS]
    ldrd r4, r7, [sp, #AT_PITCH]
    vld20.8 {q0, q1}, [r3]
    vld21.8 {q0, q1}, [r3]!
    vld20.8 {q2, q3}, [r3]
    vld21.8 {q2, q3}, [r3]!
    vldrb.u8 q7, [r9]
    adds r7, r7, r1
    add r11, r5, r4, lsl #5     /* end of the sums */
    add r4, r1, r4, lsl #5      /* the next 32 rows */
    strd r4, r3, [sp, #AT_W]
    movs r9, #1
2:  .rept 4
    ldmia r5, {r0, r2, r4, r6, r8, r10, r12, lr}
    SIXTEEN_ROWS r1, q0, q1
    SIXTEEN_ROWS r7, q2, q3
    stmia r5!, {r0, r2, r4, r6, r8, r10, r12, lr}
    vadd.i8 q7, q7, r9          /* the next byte of the rows: at most 15 * 16 + 15 */
    .endr
    cmp r5, r11
    bne 2b
    ldr r4, [sp, #AT_BLOCKS]
    subs r4, #1
    str r4, [sp, #AT_BLOCKS]
    bne 1b
    add sp, #16
    vpop {d8-d15}
    pop {r4-r11, pc}

#endif
