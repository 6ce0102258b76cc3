/* tr_program.c - programs: the table of instructions and the run loop. What an instruction computes
 * is in the function that its row names (FORMAT.md section 5). */
#include "tr_table.h"

/* ---- the table ---- */

#define ACC TR_FLAG_ACC

/* op: {function, {dst, a .. f}, operands, dims, flags, work, rules} */
static const tr_op_info forward[] = {
    [TR_OP_INPUT - TR_OP_INPUT] = {tr_input,
                                   {ROW | N0, I16 | N0, VEC32 | N1, VEC32 | N1},
                                   4,
                                   2,
                                   0,
                                   PER_ELEMENT,
                                   IMM_COUNT | WINDOW},
    [TR_OP_ZERO - TR_OP_INPUT] = {tr_zero, {FIXED | N0_N1}, 1, 2, 0, PER_WEIGHT, 0},
    [TR_OP_COPY - TR_OP_INPUT] = {tr_copy, {ROW | N0, ROW | N0}, 2, 1, ACC, PER_ELEMENT, 0},
    [TR_OP_ADD - TR_OP_INPUT] = {tr_add, {ROW | N0, ROW | N0, ROW | N0}, 3, 1, 0, PER_ELEMENT, 0},
    [TR_OP_MUL - TR_OP_INPUT] = {tr_mul, {ROW | N0, ROW | N0, ROW | N0}, 3, 1, 0, PER_ELEMENT, 0},
    [TR_OP_SCALE -
        TR_OP_INPUT] = {tr_scale, {ROW | N0, ROW | N0}, 2, 1, ACC, PER_ELEMENT, IMM_FLOAT},
    [TR_OP_LINEAR -
        TR_OP_INPUT] = {tr_linear, {ROW | N1, ROW | N0, MAT, VEC_OPT | N1}, 4, 2, 0, PER_WEIGHT, 0},
    [TR_OP_QUANTIZE - TR_OP_INPUT] = {tr_quantize, {Q8 | N0, ROW | N0}, 2, 1, 0, PER_ELEMENT, 0},
    [TR_OP_TERNARY - TR_OP_INPUT] =
        {tr_ternary, {ROW | N1, Q8 | N0, TRITS, NONE, SCRATCH | N0}, 5, 2, 0, PER_WEIGHT, 0},
    [TR_OP_LORA - TR_OP_INPUT] =
        {tr_lora, {ROW | N1, ROW | N0, LORA_A, LORA_B, FIXED | N2}, 5, 3, 0, PER_FACTOR, IMM_FLOAT},
    [TR_OP_RMSNORM -
        TR_OP_INPUT] = {tr_rmsnorm, {ROW | N0, ROW | N0, GAIN}, 3, 1, 0, PER_ELEMENT, IMM_FLOAT},
    [TR_OP_ROPE - TR_OP_INPUT] = {tr_rope,
                                  {ROW | N0, ROW | N0, VEC32 | N1_HALF},
                                  3,
                                  2,
                                  TR_FLAG_INTERLEAVED | TR_FLAG_BACK,
                                  PER_FUNCTION,
                                  PAIRS},
    [TR_OP_ATTENTION -
        TR_OP_INPUT] = {tr_attention,
                        {ROW | N0_N2, ROW | N0_N2, BLOCK | N1_N2, BLOCK | N1_N2, FIXED | T},
                        5,
                        3,
                        TR_FLAG_CAUSAL,
                        PER_SCORE,
                        HEADS | ATTENDS},
    [TR_OP_SWIGLU -
        TR_OP_INPUT] = {tr_swiglu, {ROW | N0, ROW | N0, ROW | N0}, 3, 1, 0, PER_FUNCTION, 0},
    [TR_OP_SILU - TR_OP_INPUT] = {tr_silu, {ROW | N0, ROW | N0}, 2, 1, 0, PER_FUNCTION, 0},
    [TR_OP_GELU - TR_OP_INPUT] = {tr_gelu, {ROW | N0, ROW | N0}, 2, 1, 0, PER_FUNCTION, 0},
    [TR_OP_RELU - TR_OP_INPUT] = {tr_relu, {ROW | N0, ROW | N0}, 2, 1, 0, PER_ELEMENT, 0},
    [TR_OP_MEANPOOL -
        TR_OP_INPUT] = {tr_meanpool, {FIXED | N0, ROW | N0}, 2, 1, 0, PER_ELEMENT, WINDOW},
    [TR_OP_LAYERNORM - TR_OP_INPUT] = {tr_layernorm,
                                       {ROW | N0, ROW | N0, VEC | N0, VEC_OPT | N0},
                                       4,
                                       1,
                                       0,
                                       PER_ELEMENT,
                                       IMM_FLOAT},
    [TR_OP_EMBEDDING -
        TR_OP_INPUT] = {tr_embedding, {ROW | N0, NONE, MAT}, 3, 2, 0, PER_ELEMENT, TOKEN},
    [TR_OP_QUANTIZE16 -
        TR_OP_INPUT] = {tr_quantize16, {Q16 | N0, ROW | N0}, 2, 1, 0, PER_ELEMENT, 0},
    [TR_OP_LINEAR_I8 - TR_OP_INPUT] =
        {tr_linear_i8, {ROW | N1, Q16 | N0, MAT_I8, VEC_OPT | N1}, 4, 2, 0, PER_WEIGHT, SHORT_SUM},
    [TR_OP_ATTENTION_Q8 - TR_OP_INPUT] = {tr_attention_q8,
                                          {ROW | N0_N2, Q16 | N0_N2, BLOCK | N1_N2_Q8,
                                           BLOCK | N1_N2_Q8, FIXED | T_THRICE},
                                          5,
                                          3,
                                          TR_FLAG_CAUSAL,
                                          PER_SCORE,
                                          HEADS | ATTENDS | SHORT_SUM},
    [TR_OP_TERNARY16 - TR_OP_INPUT] = {tr_ternary16,
                                       {Q16 | N1, Q8 | N0, TRITS, NONE, SCRATCH | N0, FIXED | N1},
                                       6,
                                       2,
                                       0,
                                       PER_WEIGHT,
                                       0},
    [TR_OP_ROPE16 - TR_OP_INPUT] = {tr_rope16,
                                    {Q16 | N0, Q16 | N0, VEC32 | N1_HALF},
                                    3,
                                    2,
                                    TR_FLAG_INTERLEAVED,
                                    PER_FUNCTION,
                                    PAIRS},
    [TR_OP_NARROW - TR_OP_INPUT] = {tr_narrow, {Q8 | N0, Q16 | N0}, 2, 1, 0, PER_ELEMENT, 0},
    [TR_OP_SWIGLU_Q8 - TR_OP_INPUT] =
        {tr_swiglu_q8, {Q8 | N0, Q16 | N0, Q16 | N0, NONE, FIXED | N0}, 5, 1, 0, PER_FUNCTION, 0},
    [TR_OP_NORM_Q8 - TR_OP_INPUT] = {tr_norm_q8,
                                     {Q8 | N0, ROW | N0, GAIN_I16, NONE, FIXED | N0},
                                     5,
                                     1,
                                     0,
                                     PER_ELEMENT,
                                     IMM_FLOAT},
    [TR_OP_LORA16 -
        TR_OP_INPUT] = {tr_lora16,
                        {Q16 | N1, Q8 | N0, LORA_A, LORA_B, FIXED | N2, FIXED | N0, FIXED | N1},
                        7,
                        3,
                        0,
                        PER_FACTOR,
                        IMM_FLOAT},
};

static const tr_op_info backward[] = {
    [TR_OP_CROSS_ENTROPY -
     64] = {tr_cross_entropy, {ROW | N0, ROW | N0}, 2, 1, 0, PER_FUNCTION, LOGITS},
    [TR_OP_LINEAR_T - 64] = {tr_linear_t, {ROW | N0, ROW | N1, MAT}, 3, 2, ACC, PER_WEIGHT, 0},
    [TR_OP_TERNARY_T - 64] =
        {tr_ternary_t, {ROW | N0, Q16 | N1, TRITS, NONE, SCRATCH | N0}, 5, 2, ACC, PER_WEIGHT, 0},
    [TR_OP_LORA_BWD - 64] = {tr_lora_bwd,
                             {ROW_OPT | N0, ROW | N0, LORA_A, LORA_B, ROW | N1, FIXED | N2_TWICE},
                             6,
                             3,
                             ACC,
                             PER_FACTOR,
                             IMM_FLOAT},
    [TR_OP_RMSNORM_BWD - 64] =
        {tr_rmsnorm_bwd, {ROW | N0, ROW | N0, GAIN, ROW | N0}, 4, 1, ACC, PER_ELEMENT, IMM_FLOAT},
    [TR_OP_ATTENTION_BWD - 64] = {tr_attention_bwd,
                                  {ROW | N0_N2, ROW | N0_N2, BLOCK | N1_N2, BLOCK | N1_N2,
                                   ROW | N0_N2, BLOCK | N1_N2, BLOCK | N1_N2},
                                  7,
                                  3,
                                  TR_FLAG_CAUSAL,
                                  PER_SCORE,
                                  HEADS | IMM_SCRATCH},
    [TR_OP_SWIGLU_BWD - 64] = {tr_swiglu_bwd,
                               {ROW | N0, ROW | N0, ROW | N0, ROW | N0, ROW | N0},
                               5,
                               1,
                               0,
                               PER_FUNCTION,
                               0},
    [TR_OP_SILU_BWD -
        64] = {tr_silu_bwd, {ROW | N0, ROW | N0, NONE, ROW | N0}, 4, 1, ACC, PER_FUNCTION, 0},
    [TR_OP_GELU_BWD -
        64] = {tr_gelu_bwd, {ROW | N0, ROW | N0, NONE, ROW | N0}, 4, 1, ACC, PER_FUNCTION, 0},
    [TR_OP_RELU_BWD -
        64] = {tr_relu_bwd, {ROW | N0, ROW | N0, NONE, ROW | N0}, 4, 1, ACC, PER_ELEMENT, 0},
    [TR_OP_LAYERNORM_BWD - 64] = {tr_layernorm_bwd,
                                  {ROW | N0, ROW | N0, VEC | N0, ROW | N0},
                                  4,
                                  1,
                                  ACC,
                                  PER_ELEMENT,
                                  IMM_FLOAT},
    [TR_OP_OPTIMIZE - 64] = {tr_optimize, {NONE}, 0, 0, 0, PER_FLOAT, LAST},
};

/* Of an instruction that passed the check. */
static inline const tr_op_info *info_of(uint32_t op) {
    return TR_ADAPT && op >= TR_OP_CROSS_ENTROPY ? &backward[op - 64] : &forward[op - TR_OP_INPUT];
}

const tr_op_info *tr_op_info_of(uint32_t op) {
    if (op < TR_OP_INPUT || op >= TR_OP_BACKWARD_END) return NULL;
    if (op >= TR_OP_FORWARD_END && (!TR_ADAPT || op < TR_OP_CROSS_ENTROPY)) return NULL;
    const tr_op_info *info = info_of(op);
    return info->run ? info : NULL;
}

/* ---- sizes ---- */

/* Of each width two factors, 1 to 3 for n0 to n2, the first 0 for T and the second for none; and in
 * sixteenths what comes then: nothing, a half, a multiple, or the words of a q8 row. */
uint32_t tr_operand_width(const tr_instr *i, uint32_t operand, uint32_t rows) {
    enum { HALF = 0x00, ONCE = 0x10, TWICE = 0x20, THRICE = 0x30, Q8_WORDS = 0x40 };
    static const uint8_t widths[16] = {
        [N0] = ONCE | 1,
        [N1] = ONCE | 2,
        [N2] = ONCE | 3,
        [N2_TWICE] = TWICE | 3,
        [N0_N1] = ONCE | 1 | 2 << 2,
        [N0_N2] = ONCE | 1 | 3 << 2,
        [N1_N2] = ONCE | 2 | 3 << 2,
        [N1_HALF] = HALF | 2,
        [N1_N2_Q8] = Q8_WORDS | 2 | 3 << 2,
        [T] = ONCE,
        [T_THRICE] = THRICE,
    };
    const tr_u16 *n = (const tr_u16 *)(const void *)i; /* n0 is the second */
    uint32_t how = widths[operand & 15], first = how & 3, second = how >> 2 & 3;
    uint32_t width = first ? n[first] : rows;
    if (second) width *= n[second];
    how >>= 4;
    if (!how) return width / 2;
    if (how == Q8_WORDS >> 4) return (uint32_t)tr_round_up(width, 64) / 4 + 4;
    return how * width;
}

uint64_t tr_operand_bytes(const tr_instr *i, uint32_t operand, uint32_t rows) {
    uint32_t width = tr_operand_width(i, operand, rows), each = 4, more = 0;
    switch (operand & 0xF0) {
    case BLOCK:
        each = 4 * rows;
        break;
    case Q8:
        width = (uint32_t)tr_round_up(width, 64);
        each = 1;
        more = 16;
        break;
    case Q16:
        width = (uint32_t)tr_round_up(width, 8);
        more = 16;
        each = 2;
        break;
    case SCRATCH:
        width = (uint32_t)tr_round_up(width, 64);
        if (width < 704) width = 704;
        each = 2;
        break;
    case I16:
        each = 2;
        break;
    default:
        break;
    }
    return (uint64_t)width * each + more;
}

/* ---- the run loop ---- */

/* Where an operand of a call lies. Spaces are 0 none, 1 arena, 2 tensors, 3 adapters. */
static inline void *resolve(const tr_call *call, uint8_t *const base[4], uint32_t operand,
                            uint32_t word) {
    uint32_t space = word >> 29, index = word & TR_OPERAND_INDEX;
    if (space != TR_SPACE_ARENA) /* an entry of a directory */
        return space ? base[space] + index * sizeof(tr_tensor) : NULL;
    uint8_t *start = base[TR_SPACE_ARENA] + 4 * index;
    if (word & TR_OPERAND_STEP) start += call->t * (uint32_t)tr_operand_bytes(call->i, operand, 1);
    return start;
}

static TR_FAST void run_rows(tr_call *call, uint8_t *const base[4], const tr_instr *code,
                             uint32_t count) {
    for (const tr_instr *i = code, *end = code + count; i < end; ++i) {
        const tr_op_info *info = info_of(i->op);
        void **operand = &call->dst; /* and a .. f behind it */
        call->i = i;
        for (uint32_t k = 0, operands = info->operands; k < operands; ++k)
            operand[k] = resolve(call, base, info->operand[k], i->operand[k]);
        info->run(call);
    }
}

void tr_program_run(tr_session *session, const tr_program *program, uint32_t count) {
    const tr_instr *code = (const tr_instr *)(const void *)(program + 1);
    tr_call call = {0};
    call.session = session;
    uint8_t *const base[4] = {NULL, session->arena, (uint8_t *)(uintptr_t)session->model->tensors,
                              (uint8_t *)(uintptr_t)session->model->adapters};
    if (program->flags & TR_PROGRAM_STREAM) {
        call.rows = session->model->length;
        call.t = call.turn = session->position;
        run_rows(&call, base, code, count);
        return;
    }
    for (uint32_t k = 0; k < count;) {
        int loop = code[k].op == TR_OP_LOOP, reverse = loop && code[k].flags & TR_FLAG_REVERSE;
        uint32_t body = loop ? code[k].n1 : 1;
        call.rows = loop ? code[k].n0 : 1;
        k += (uint32_t)loop;
        for (call.turn = 0; call.turn < call.rows; ++call.turn) {
            call.t = reverse ? call.rows - 1 - call.turn : call.turn;
            run_rows(&call, base, &code[k], body);
        }
        k += body;
    }
}
