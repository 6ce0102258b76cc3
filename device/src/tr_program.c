/* tr_program.c - programs: one table describes every instruction's operands; the check at load and
 * the run loop both work from it. What an instruction computes is in the function that its row
 * names (FORMAT.md section 5). */
#include "tr_internal.h"

/* ---- the table ---- */

/* An operand is a kind (high nibble) and a width (low nibble). */
enum {
    NONE = 0,
    ROW = 0x10,     /* F32 [width], may step */
    ROW_OPT = 0x20, /* the same, or none */
    FIXED = 0x30,   /* F32 [width], may not step */
    BLOCK = 0x40,   /* F32 [T, width], may not step */
    Q8 = 0x50,      /* q8[width], 16-byte aligned, may step */
    Q16 = 0x60,     /* q16[width], 16-byte aligned, may step */
    I16 = 0x70,     /* int16 [width], may step; imm: elements that are read at most */
    SCRATCH = 0x80, /* scratch(width), 16-byte aligned */
    VEC32 = 0x90,   /* F32 tensor [1, width] */
    VEC = 0xA0,     /* F32 or F16 tensor [1, width] */
    VEC_OPT = 0xB0, /* the same, or none */
    MAT = 0xC0,     /* F32, F16 or I8 tensor [n1, n0] */
    TRITS = 0xD0,   /* T2 tensor [n1, n0] */
    LORA_A = 0xE0,  /* adapter n0 -> n1 of rank n2, or F32 or F16 tensor [n2, n0] */
    LORA_B = 0xF0   /* F32 or F16 tensor [n1, n2] where LORA_A is a tensor */
};
enum { N0, N1, N2, N2_TWICE, N0_N1, N0_N2, N1_N2, N1_HALF, T, T_TWICE };

/* Rules that concern one instruction, or where it may stand. */
enum {
    IMM_FLOAT = 1,
    IMM_COUNT = 2,
    IMM_SCRATCH = 4,
    HEADS = 8,
    PAIRS = 16,
    LOGITS = 32,
    LAST = 64
};

typedef struct {
    tr_run *run;
    uint8_t operand[7]; /* dst, a .. f */
    uint8_t dims;       /* how many of n0, n1, n2 are used; those are >= 1 */
    uint8_t flags;      /* flags allowed */
    uint8_t rules;
} op_info;

#define ACC TR_FLAG_ACC

static const op_info ops[] = {
    [TR_OP_INPUT] = {tr_input, {ROW | N0, I16 | N0, VEC32 | N1, VEC32 | N1}, 2, 0, IMM_COUNT},
    [TR_OP_ZERO] = {tr_zero, {FIXED | N0_N1}, 2, 0, 0},
    [TR_OP_COPY] = {tr_copy, {ROW | N0, ROW | N0}, 1, ACC, 0},
    [TR_OP_ADD] = {tr_add, {ROW | N0, ROW | N0, ROW | N0}, 1, 0, 0},
    [TR_OP_MUL] = {tr_mul, {ROW | N0, ROW | N0, ROW | N0}, 1, 0, 0},
    [TR_OP_SCALE] = {tr_scale, {ROW | N0, ROW | N0}, 1, ACC, IMM_FLOAT},
    [TR_OP_LINEAR] = {tr_linear, {ROW | N1, ROW | N0, MAT, VEC_OPT | N1}, 2, 0, 0},
    [TR_OP_QUANTIZE] = {tr_quantize, {Q8 | N0, ROW | N0}, 1, 0, 0},
    [TR_OP_TERNARY] = {tr_ternary, {ROW | N1, Q8 | N0, TRITS, NONE, SCRATCH | N0}, 2, 0, 0},
    [TR_OP_LORA] = {tr_lora, {ROW | N1, ROW | N0, LORA_A, LORA_B, FIXED | N2}, 3, 0, IMM_FLOAT},
    [TR_OP_RMSNORM] = {tr_rmsnorm, {ROW | N0, ROW | N0, VEC_OPT | N0}, 1, 0, IMM_FLOAT},
    [TR_OP_ROPE] = {tr_rope,
                    {ROW | N0, ROW | N0, VEC32 | N1_HALF},
                    2,
                    TR_FLAG_INTERLEAVED | TR_FLAG_BACK,
                    PAIRS},
    [TR_OP_ATTENTION] = {tr_attention,
                         {ROW | N0_N2, ROW | N0_N2, BLOCK | N1_N2, BLOCK | N1_N2, FIXED | T},
                         3,
                         TR_FLAG_CAUSAL,
                         HEADS},
    [TR_OP_SWIGLU] = {tr_swiglu, {ROW | N0, ROW | N0, ROW | N0}, 1, 0, 0},
    [TR_OP_SILU] = {tr_silu, {ROW | N0, ROW | N0}, 1, 0, 0},
    [TR_OP_GELU] = {tr_gelu, {ROW | N0, ROW | N0}, 1, 0, 0},
    [TR_OP_RELU] = {tr_relu, {ROW | N0, ROW | N0}, 1, 0, 0},
    [TR_OP_MEANPOOL] = {tr_meanpool, {FIXED | N0, ROW | N0}, 1, 0, 0},
    [TR_OP_LAYERNORM] =
        {tr_layernorm, {ROW | N0, ROW | N0, VEC | N0, VEC_OPT | N0}, 1, 0, IMM_FLOAT},
    [TR_OP_QUANTIZE16] = {tr_quantize16, {Q16 | N0, ROW | N0}, 1, 0, 0},
};

static const op_info ops_bwd[] = {
    [TR_OP_CROSS_ENTROPY - 64] = {tr_cross_entropy, {ROW | N0, ROW | N0}, 1, 0, LOGITS},
    [TR_OP_LINEAR_T - 64] = {tr_linear_t, {ROW | N0, ROW | N1, MAT}, 2, ACC, 0},
    [TR_OP_TERNARY_T -
        64] = {tr_ternary_t, {ROW | N0, Q16 | N1, TRITS, NONE, SCRATCH | N0}, 2, ACC, 0},
    [TR_OP_LORA_BWD - 64] = {tr_lora_bwd,
                             {ROW_OPT | N0, ROW | N0, LORA_A, LORA_B, ROW | N1, FIXED | N2_TWICE},
                             3,
                             ACC,
                             IMM_FLOAT},
    [TR_OP_RMSNORM_BWD -
        64] = {tr_rmsnorm_bwd, {ROW | N0, ROW | N0, VEC_OPT | N0, ROW | N0}, 1, ACC, IMM_FLOAT},
    [TR_OP_ATTENTION_BWD - 64] = {tr_attention_bwd,
                                  {ROW | N0_N2, ROW | N0_N2, BLOCK | N1_N2, BLOCK | N1_N2,
                                   ROW | N0_N2, BLOCK | N1_N2, BLOCK | N1_N2},
                                  3,
                                  TR_FLAG_CAUSAL,
                                  HEADS | IMM_SCRATCH},
    [TR_OP_SWIGLU_BWD -
        64] = {tr_swiglu_bwd, {ROW | N0, ROW | N0, ROW | N0, ROW | N0, ROW | N0}, 1, 0, 0},
    [TR_OP_SILU_BWD - 64] = {tr_silu_bwd, {ROW | N0, ROW | N0, NONE, ROW | N0}, 1, ACC, 0},
    [TR_OP_GELU_BWD - 64] = {tr_gelu_bwd, {ROW | N0, ROW | N0, NONE, ROW | N0}, 1, ACC, 0},
    [TR_OP_RELU_BWD - 64] = {tr_relu_bwd, {ROW | N0, ROW | N0, NONE, ROW | N0}, 1, ACC, 0},
    [TR_OP_LAYERNORM_BWD -
        64] = {tr_layernorm_bwd, {ROW | N0, ROW | N0, VEC | N0, ROW | N0}, 1, ACC, IMM_FLOAT},
    [TR_OP_OPTIMIZE - 64] = {tr_optimize, {NONE}, 0, 0, LAST},
};

/* NULL: no such instruction, or not one of this table (LOOP is the run loop's own). */
static const op_info *info_of(uint32_t op) {
    const op_info *info = NULL;
    if (op < TR_OP_FORWARD_END) info = &ops[op];
    if (op >= TR_OP_CROSS_ENTROPY && op < TR_OP_BACKWARD_END) info = &ops_bwd[op - 64];
    return info && info->run ? info : NULL;
}

/* ---- sizes ---- */

static uint64_t width_of(const tr_instr *i, uint32_t operand, uint32_t rows) {
    switch (operand & 15) {
    case N0:
        return i->n0;
    case N1:
        return i->n1;
    case N2:
        return i->n2;
    case N2_TWICE:
        return 2u * i->n2;
    case N0_N1:
        return (uint64_t)i->n0 * i->n1;
    case N0_N2:
        return (uint64_t)i->n0 * i->n2;
    case N1_N2:
        return (uint64_t)i->n1 * i->n2;
    case N1_HALF:
        return i->n1 / 2u;
    case T:
        return rows;
    default:
        return 2ull * rows;
    }
}

/* Bytes of an arena operand: of one row where it may step, of all of it where not. */
static uint64_t arena_bytes(const tr_instr *i, uint32_t operand, uint32_t rows) {
    uint64_t width = width_of(i, operand, rows), pad64;
    switch (operand & 0xF0) {
    case BLOCK:
        return 4 * width * rows;
    case Q8:
        return tr_round_up(width, 64) + 16;
    case Q16:
        return 2 * tr_round_up(width, 8) + 16;
    case I16:
        return 2 * width;
    case SCRATCH:
        pad64 = tr_round_up(width, 64);
        return 2 * pad64 > 1408 ? 2 * pad64 : 1408;
    default:
        return 4 * width;
    }
}

/* ---- the check at load ---- */

typedef struct {
    const tr_model *model;
    uint32_t limit; /* arena bytes that operands may touch */
    uint32_t rows;  /* of the enclosing loop, 1 outside */
} checker;

static int in_arena(const checker *check, uint32_t word, uint64_t bytes) {
    return 4 * (uint64_t)(word & TR_OPERAND_INDEX) + bytes <= check->limit;
}

static int arena_operand_ok(const checker *check, const tr_instr *i, uint32_t operand,
                            uint32_t word) {
    uint32_t kind = operand & 0xF0;
    uint64_t bytes = arena_bytes(i, operand, check->rows);
    if (word >> 29 != TR_SPACE_ARENA) return 0;
    if ((kind == Q8 || kind == Q16 || kind == SCRATCH) && word % 4) return 0;
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

static int operand_ok(const checker *check, const tr_instr *i, uint32_t operand, uint32_t word) {
    enum {
        F32 = 1 << TR_F32,
        FLOATS = F32 | 1 << TR_F16,
        ANY = FLOATS | 1 << TR_I8,
        T2 = 1 << TR_T2
    };
    uint64_t width = width_of(i, operand, check->rows);
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
        return word == 0 || tensor_ok(check, word, FLOATS, 1, width);
    case MAT:
        return tensor_ok(check, word, ANY, i->n1, i->n0);
    case TRITS:
        return tensor_ok(check, word, T2, i->n1, i->n0);
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

static int imm_ok(const checker *check, const tr_instr *i, uint32_t rules) {
    if (rules & IMM_FLOAT) return tr_finite(tr_from_bits(i->imm));
    if (rules & IMM_SCRATCH)
        return i->imm <= TR_OPERAND_INDEX && in_arena(check, i->imm, 8 * (uint64_t)check->rows);
    return rules & IMM_COUNT || i->imm == 0;
}

static tr_status check_instruction(const checker *check, const tr_instr *i, const op_info *info) {
    const uint32_t n[3] = {i->n0, i->n1, i->n2};
    for (unsigned k = 0; k < 3; ++k) {
        if ((n[k] != 0) != (k < info->dims)) return TR_ERR_OPERAND;
    }
    if (i->flags & ~info->flags || !imm_ok(check, i, info->rules)) return TR_ERR_OPERAND;
    if (info->rules & HEADS && i->n0 % i->n1) return TR_ERR_OPERAND;
    if (info->rules & PAIRS && (i->n1 % 2 || i->n0 % i->n1)) return TR_ERR_OPERAND;
    if (info->rules & LOGITS && i->n0 != check->model->outputs) return TR_ERR_OPERAND;
    for (unsigned k = 0; k < 7; ++k) {
        if (!operand_ok(check, i, info->operand[k], i->operand[k])) return TR_ERR_OPERAND;
    }
    return TR_OK;
}

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
        if (program->state + state_bytes > model->adapt_arena) return TR_ERR_OPERAND;
        check->limit = program->state;
    } else if (program->state) {
        return TR_ERR_OPERAND;
    }
    if (program->flags > (adapt ? TR_PROGRAM_AFTER_INFER : 0u)) return TR_ERR_OPERAND;
    for (unsigned k = 0; k < 4; ++k) {
        if (program->reserved[k]) return TR_ERR_OPERAND;
    }
    if (program->flags) {
        const tr_program *infer = (const tr_program *)(const void *)model->infer;
        if (program->input != infer->input || program->logits != infer->logits)
            return TR_ERR_OPERAND;
    }
    if (program->input % 4 || program->input > TR_OPERAND_INDEX ||
        program->logits > TR_OPERAND_INDEX)
        return TR_ERR_OPERAND;
    if (!in_arena(check, program->input, 2 * (uint64_t)model->channels * model->length))
        return TR_ERR_OPERAND;
    return in_arena(check, program->logits, 4 * (uint64_t)model->outputs) ? TR_OK : TR_ERR_OPERAND;
}

tr_status tr_program_check(const tr_model *model, const tr_program *program, uint32_t count,
                           int adapt) {
    checker check = {model, 0, 1};
    const tr_instr *code = (const tr_instr *)(const void *)(program + 1);
    uint32_t body = 0, losses = 0, steps = 0; /* body: instructions left of the present loop */
    tr_status status = check_header(&check, program, adapt);
    for (uint32_t k = 0; k < count && !status; ++k) {
        const tr_instr *i = &code[k];
        if (i->op == TR_OP_LOOP) {
            if (body || !loop_ok(i, count - k - 1)) return TR_ERR_OPERAND;
            body = i->n1;
            check.rows = i->n0;
            continue;
        }
        const op_info *info = info_of(i->op);
        if (!info || (i->op >= TR_OP_CROSS_ENTROPY && !adapt)) return TR_ERR_OPCODE;
        /* the loss is computed once and the factors move once, at the very end */
        if (info->rules & (LOGITS | LAST) && body) return TR_ERR_OPCODE;
        if (info->rules & LAST && k + 1 != count) return TR_ERR_OPCODE;
        losses += info->rules / LOGITS & 1;
        steps += info->rules / LAST & 1;
        status = check_instruction(&check, i, info);
        if (body && --body == 0) check.rows = 1;
    }
    if (!status && adapt && (losses != 1 || steps != 1)) return TR_ERR_OPCODE;
    return status;
}

/* ---- the run loop ---- */

static void *resolve(const tr_call *call, uint32_t operand, uint32_t word) {
    const tr_model *model = call->session->model;
    uint32_t index = word & TR_OPERAND_INDEX;
    if (word >> 29 == TR_SPACE_ARENA) {
        uint8_t *start = call->session->arena + 4 * index;
        return word & TR_OPERAND_STEP ? start + call->t * (uint32_t)arena_bytes(call->i, operand, 1)
                                      : start;
    }
    if (word >> 29 == TR_SPACE_TENSOR) return (void *)(uintptr_t)tr_tensor_at(model, index);
    if (word >> 29 == TR_SPACE_ADAPTER) return (void *)(uintptr_t)tr_adapter_at(model, index);
    return NULL;
}

static void execute(tr_call *call, const tr_instr *i) {
    const op_info *info = info_of(i->op);
    call->i = i;
    call->dst = resolve(call, info->operand[0], i->operand[0]);
    call->a = resolve(call, info->operand[1], i->operand[1]);
    call->b = resolve(call, info->operand[2], i->operand[2]);
    call->c = resolve(call, info->operand[3], i->operand[3]);
    call->d = resolve(call, info->operand[4], i->operand[4]);
    call->e = resolve(call, info->operand[5], i->operand[5]);
    call->f = resolve(call, info->operand[6], i->operand[6]);
    info->run(call);
}

void tr_program_run(tr_session *session, const tr_program *program, uint32_t count) {
    const tr_instr *code = (const tr_instr *)(const void *)(program + 1);
    tr_call call = {0};
    call.session = session;
    for (uint32_t k = 0; k < count;) {
        int loop = code[k].op == TR_OP_LOOP, reverse = loop && code[k].flags & TR_FLAG_REVERSE;
        uint32_t body = loop ? code[k].n1 : 1;
        call.rows = loop ? code[k].n0 : 1;
        k += (uint32_t)loop;
        for (call.turn = 0; call.turn < call.rows; ++call.turn) {
            call.t = reverse ? call.rows - 1 - call.turn : call.turn;
            for (uint32_t n = 0; n < body; ++n) execute(&call, &code[k + n]);
        }
        k += body;
    }
}
