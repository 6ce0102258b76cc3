/* tr_check.c - the check of a program at load: after it, whatever the program does stays inside the
 * blob and inside the arena; and how much work it is. */
#include "tr_table.h"

typedef struct {
    const tr_model *model;
    uint32_t limit; /* arena bytes that operands may touch */
    uint32_t top;   /* where the furthest of them ends */
    uint32_t rows;  /* of the enclosing loop, 1 outside */
    int stream;
} checker;

/* ---- operands ---- */

static int in_arena(checker *check, uint32_t word, uint64_t bytes) {
    uint64_t end = 4 * (uint64_t)(word & TR_OPERAND_INDEX) + bytes;
    if (end > check->limit) return 0;
    if (end > check->top) check->top = (uint32_t)end;
    return 1;
}

static int arena_operand_ok(checker *check, const tr_instr *i, uint32_t operand, uint32_t word) {
    uint32_t kind = operand & 0xF0;
    uint64_t bytes = tr_operand_bytes(i, operand, check->rows);
    if (word >> 29 != TR_SPACE_ARENA) return 0;
    if ((kind == Q8 || kind == Q16 || kind == SCRATCH || operand == (BLOCK | N1_N2_Q8)) && word % 4)
        return 0;
    if (word & TR_OPERAND_STEP) {
        if (kind == FIXED || kind == BLOCK || kind == SCRATCH) return 0;
        bytes *= check->rows;
        if (kind == I16 && bytes > 2 * (uint64_t)i->imm) bytes = 2 * (uint64_t)i->imm;
    }
    return in_arena(check, word, bytes);
}

static int tensor_ok(const checker *check, uint32_t word, uint32_t dtypes, uint64_t rows,
                     uint64_t cols) {
    if (word >> 29 != TR_SPACE_TENSOR || word & TR_OPERAND_STEP) return 0;
    if ((word & TR_OPERAND_INDEX) >= check->model->tensor_count) return 0;
    const tr_tensor *tensor = tr_tensor_at(check->model, word & TR_OPERAND_INDEX);
    return (dtypes >> tensor->dtype & 1) && tensor->rows == rows && tensor->cols == cols;
}

static int adapter_ok(const checker *check, const tr_instr *i, uint32_t word) {
    if (word & TR_OPERAND_STEP || (word & TR_OPERAND_INDEX) >= check->model->adapter_count)
        return 0;
    const tr_adapter *adapter = tr_adapter_at(check->model, word & TR_OPERAND_INDEX);
    return adapter->in == i->n0 && adapter->out == i->n1 && adapter->rank == i->n2;
}

static int operand_ok(checker *check, const tr_instr *i, uint32_t operand, uint32_t word) {
    enum { F32 = 1 << TR_F32, I8 = 1 << TR_I8, T2 = 1 << TR_T2, T2D = 1 << TR_T2D };
    enum { FLOATS = F32 | 1 << TR_F16, ANY = FLOATS | I8, SHORT = 1 << TR_I16 };
    uint64_t width = tr_operand_width(i, operand, check->rows);
    switch (operand & 0xF0) {
    case NONE:
        return word == 0;
    case ROW_OPT:
        return word == 0 || arena_operand_ok(check, i, operand, word);
    case VEC32:
        return tensor_ok(check, word, F32, 1, width);
    case VEC:
        return tensor_ok(check, word, FLOATS, 1, width);
    case VEC_OPT:
        if (word == 0) return 1;
        if (operand == GAIN_I16) return tensor_ok(check, word, SHORT, 1, i->n0);
        if (operand == GAIN) return tensor_ok(check, word, FLOATS | SHORT, 1, i->n0);
        return tensor_ok(check, word, FLOATS, 1, width);
    case MAT:
        return tensor_ok(check, word, operand == MAT_I8 ? I8 : ANY, i->n1, i->n0);
    case TRITS:
        return tensor_ok(check, word, T2 | T2D, i->n1, i->n0);
    case LORA_A:
        if (word >> 29 == TR_SPACE_ADAPTER) return adapter_ok(check, i, word);
        return tensor_ok(check, word, FLOATS, i->n2, i->n0);
    case LORA_B:
        if (i->operand[2] >> 29 == TR_SPACE_ADAPTER) return word == 0;
        return tensor_ok(check, word, FLOATS, i->n1, i->n2);
    default:
        return arena_operand_ok(check, i, operand, word);
    }
}

static int imm_ok(checker *check, const tr_instr *i, uint32_t rules) {
    if (rules & IMM_FLOAT) return tr_finite(tr_from_bits(i->imm));
    if (rules & IMM_SCRATCH)
        return i->imm <= TR_OPERAND_INDEX && in_arena(check, i->imm, 8 * (uint64_t)check->rows);
    return rules & IMM_COUNT || i->imm == 0;
}

/* ---- one instruction ---- */

/* Sums of so many products of 16 and 8 bits that int32 holds them. */
static int sum_is_short(const checker *check, const tr_instr *i, uint32_t rules) {
    if (rules & HEADS) return i->n2 <= 256 && check->rows <= 512;
    return i->n0 <= 512;
}

static int dims_ok(const checker *check, const tr_instr *i, uint32_t rules) {
    if (rules & HEADS && i->n0 % i->n1) return 0;
    if (rules & PAIRS && (i->n1 % 2 || i->n0 % i->n1)) return 0;
    if (rules & LOGITS && i->n0 != check->model->outputs) return 0;
    if (rules & TOKEN && i->n1 != check->model->outputs) return 0;
    if (rules & ATTENDS && check->stream && !(i->flags & TR_FLAG_CAUSAL)) return 0;
    return !(rules & SHORT_SUM) || sum_is_short(check, i, rules);
}

static tr_status check_instruction(checker *check, const tr_instr *i, const tr_op_info *info) {
    const uint32_t n[3] = {i->n0, i->n1, i->n2};
    for (unsigned k = 0; k < 3; ++k) {
        if ((n[k] != 0) != (k < info->dims)) return TR_ERR_OPERAND;
    }
    if (i->flags & ~info->flags || !imm_ok(check, i, info->rules)) return TR_ERR_OPERAND;
    if (!dims_ok(check, i, info->rules)) return TR_ERR_OPERAND;
    for (unsigned k = 0; k < 7; ++k) {
        if (!operand_ok(check, i, info->operand[k], i->operand[k])) return TR_ERR_OPERAND;
    }
    return TR_OK;
}

/* ---- the program ---- */

static int loop_ok(const tr_instr *i, uint32_t left) {
    static const tr_instr empty;
    tr_instr rest = *i;
    rest.op = rest.flags = 0;
    rest.n0 = rest.n1 = 0;
    return memcmp(&rest, &empty, sizeof rest) == 0 && i->flags <= TR_FLAG_REVERSE && i->n0 >= 1 &&
           i->n1 >= 1 && i->n1 <= left;
}

/* The program's header; sets the limit for its operands. */
static tr_status check_header(checker *check, const tr_program *program, int adapt) {
    const tr_model *model = check->model;
    check->limit = model->infer_arena;
    if (adapt) {
        uint64_t state_bytes = 4 * tr_round_up(4 * (uint64_t)model->adapter_floats, 16);
        if (program->state % 16 || program->state < model->infer_arena) return TR_ERR_OPERAND;
        if (program->state + state_bytes != model->adapt_arena) return TR_ERR_OPERAND;
        check->limit = program->state;
        check->top = model->infer_arena;
    } else if (program->state) {
        return TR_ERR_OPERAND;
    }
    if (adapt ? program->flags > TR_PROGRAM_AFTER_INFER
              : program->flags != (check->stream ? TR_PROGRAM_STREAM : 0u))
        return TR_ERR_OPERAND;
    for (unsigned k = 0; k < 4; ++k) {
        if (program->reserved[k]) return TR_ERR_OPERAND;
    }
    if (program->flags & TR_PROGRAM_AFTER_INFER) {
        const tr_program *infer = (const tr_program *)(const void *)model->infer;
        if (program->input != infer->input || program->logits != infer->logits)
            return TR_ERR_OPERAND;
    }
    if (program->input % 4 || program->input > TR_OPERAND_INDEX ||
        program->logits > TR_OPERAND_INDEX)
        return TR_ERR_OPERAND;
    if (check->stream
            ? program->input != 0
            : !in_arena(check, program->input, 2 * (uint64_t)model->channels * model->length))
        return TR_ERR_OPERAND;
    return in_arena(check, program->logits, 4 * (uint64_t)model->outputs) ? TR_OK : TR_ERR_OPERAND;
}

/* Where an instruction may stand. */
static int place_ok(const checker *check, const tr_instr *i, uint32_t rules, int in_loop, int last,
                    int adapt) {
    if (i->op >= TR_OP_CROSS_ENTROPY && !adapt) return 0;
    if (rules & (check->stream ? WINDOW : TOKEN)) return 0;
    /* the loss is computed once and the factors move once, at the very end */
    if (rules & (LOGITS | LAST) && in_loop) return 0;
    return !(rules & LAST) || last;
}

static uint64_t times(uint64_t a, uint64_t b) {
    return b && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

/* Work of an instruction over all rows of its loop. */
static uint64_t work_of(const checker *check, const tr_instr *i, const tr_op_info *info) {
    enum { FETCH = 50, ELEMENT = 8, FUNCTION = 32, SCORE = 32, FLOAT = 32 };
    uint64_t rows = check->rows, work = 0;
    switch (info->work) {
    case PER_ELEMENT:
        work = (uint64_t)ELEMENT * i->n0;
        break;
    case PER_FUNCTION:
        work = (uint64_t)FUNCTION * i->n0;
        break;
    case PER_WEIGHT:
        work = (uint64_t)i->n0 * i->n1 + ELEMENT * (uint64_t)i->n1;
        break;
    case PER_FACTOR:
        work = 4 * ((uint64_t)i->n0 + i->n1) * i->n2;
        break;
    case PER_SCORE:
        work = (uint64_t)i->n0 * (SCORE + 4u * i->n2) * rows;
        break;
    default:
        work = (uint64_t)FLOAT * check->model->adapter_floats;
        break;
    }
    return times(work + FETCH, check->stream ? 1 : rows);
}

tr_status tr_program_check(const tr_model *model, const tr_program *program, uint32_t count,
                           int adapt, uint64_t *work) {
    checker check = {model, 0, 0, 1, !adapt && model->kind == TR_TOKENS};
    const tr_instr *code = (const tr_instr *)(const void *)(program + 1);
    uint32_t body = 0, losses = 0, steps = 0; /* body: instructions left of the present loop */
    tr_status status = check_header(&check, program, adapt);
    if (check.stream) check.rows = model->length;
    for (uint32_t k = 0; k < count && !status; ++k) {
        const tr_instr *i = &code[k];
        if (i->op == TR_OP_LOOP && !check.stream) {
            if (body || !loop_ok(i, count - k - 1)) return TR_ERR_OPERAND;
            body = i->n1;
            check.rows = i->n0;
            continue;
        }
        const tr_op_info *info = tr_op_info_of(i->op);
        if (!info || !place_ok(&check, i, info->rules, body != 0, k + 1 == count, adapt))
            return TR_ERR_OPCODE;
        losses += info->rules / LOGITS & 1;
        steps += info->rules / LAST & 1;
        status = check_instruction(&check, i, info);
        uint64_t more = work_of(&check, i, info);
        *work = more > UINT64_MAX - *work ? UINT64_MAX : *work + more;
        if (body && --body == 0) check.rows = 1;
    }
    if (!status && adapt && (losses != 1 || steps != 1)) return TR_ERR_OPCODE;
    /* what a board needs is what the blob says, and no byte more */
    if (!status && adapt && program->state != tr_round_up(check.top, 16)) return TR_ERR_OPERAND;
    return status;
}
