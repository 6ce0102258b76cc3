/* tr_table.h - what each instruction's operands are (FORMAT.md section 5), for the check at load
 * (tr_check.c) and the run loop (tr_program.c), which both work from one table. */
#ifndef TR_TABLE_H
#define TR_TABLE_H

#include "tr_internal.h"

/* An operand is a kind (high nibble) and a width (low nibble). */
enum {
    NONE = 0,
    ROW = 0x10,     /* F32 [width], may step */
    ROW_OPT = 0x20, /* the same, or none */
    FIXED = 0x30,   /* F32 [width], may not step */
    BLOCK = 0x40,   /* F32 [T, width], or q8[T, width], 16-byte aligned; may not step */
    Q8 = 0x50,      /* q8[width], 16-byte aligned, may step */
    Q16 = 0x60,     /* q16[width], 16-byte aligned, may step */
    I16 = 0x70,     /* int16 [width], may step; imm: elements that are read at most */
    SCRATCH = 0x80, /* scratch(width), 16-byte aligned */
    VEC32 = 0x90,   /* F32 tensor [1, width] */
    VEC = 0xA0,     /* F32 or F16 tensor [1, width] */
    VEC_OPT = 0xB0, /* the same, or none */
    MAT = 0xC0,     /* F32, F16 or I8 tensor [n1, n0] */
    TRITS = 0xD0,   /* T2 or T2D tensor [n1, n0] */
    LORA_A = 0xE0,  /* adapter n0 -> n1 of rank n2, or F32 or F16 tensor [n2, n0] */
    LORA_B = 0xF0   /* F32 or F16 tensor [n1, n2] where LORA_A is a tensor */
};
enum { N0, N1, N2, N2_TWICE, N0_N1, N0_N2, N1_N2, N1_HALF, N1_N2_Q8, T, T_THRICE };
enum { GAIN = VEC_OPT | 14, GAIN_I16 }; /* any vector, or I16, [1, n0]; or none */
enum { MAT_I8 = MAT | 1 };              /* I8 tensor [n1, n0] */

/* Rules that concern one instruction, or where it may stand. */
enum {
    IMM_FLOAT = 1,
    IMM_COUNT = 2,
    IMM_SCRATCH = 4,
    HEADS = 8,
    PAIRS = 16,
    LOGITS = 32,
    LAST = 64,
    TOKEN = 128,     /* only in a stream; n1 = outputs */
    WINDOW = 256,    /* not in a stream */
    ATTENDS = 512,   /* in a stream only with the causal flag */
    SHORT_SUM = 1024 /* int32 sums stay exact: n0 <= 512; of attention n2 <= 256 and T <= 512 */
};

/* What one row costs, in multiply-accumulates (tr_model, infer_work). */
enum { PER_ELEMENT, PER_FUNCTION, PER_WEIGHT, PER_FACTOR, PER_SCORE, PER_FLOAT };

typedef struct {
    tr_run *run;
    uint8_t operand[7];    /* dst, a .. f */
    unsigned operands : 3; /* how many of them are looked at */
    unsigned dims : 2;     /* how many of n0, n1, n2 are used; those are >= 1 */
    unsigned flags : 8;    /* flags allowed */
    unsigned work : 3;
    unsigned rules : 16;
} tr_op_info;

/* The row of an instruction; NULL: there is no such one, or it is LOOP, which the run loop does
 * itself. */
TR_SMALL const tr_op_info *tr_op_info_of(uint32_t op);

/* Bytes of an arena operand: of one row where it may step, of all of it where not. */
TR_SMALL uint64_t tr_operand_bytes(const tr_instr *i, uint32_t operand, uint32_t rows);

/* Its width in elements. */
TR_SMALL uint32_t tr_operand_width(const tr_instr *i, uint32_t operand, uint32_t rows);

#endif
