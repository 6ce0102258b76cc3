/* tr_internal.h - what the runtime's own files share: the blob's structures as they lie in flash
 * (device/FORMAT.md), the call of one instruction, and the functions behind tr.h. */
#ifndef TR_INTERNAL_H
#define TR_INTERNAL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "tr.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "blobs are read in place: a little-endian machine is needed"
#endif
#if defined(__FAST_MATH__)
#error "the same logits on every board need IEEE arithmetic: compile without -ffast-math"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0 && __FLT_EVAL_METHOD__ != 16
#error "float operations must round to float (on 32-bit x86: -msse2 -mfpmath=sse)"
#endif

/* The blob and the arena hold several types in the same bytes: views other than float and char may
 * alias. */
#if defined(__GNUC__)
#define TR_ALIAS __attribute__((may_alias))
#else
#define TR_ALIAS
#endif
typedef int16_t TR_ALIAS tr_i16;
typedef uint16_t TR_ALIAS tr_u16;
typedef int32_t TR_ALIAS tr_i32;
typedef uint32_t TR_ALIAS tr_u32;

/* A core without a floating-point unit: what can be done in integers is. Forced on for tests. */
#if !defined(TR_SOFT_FLOAT) && defined(__arm__) && !defined(__ARM_FP)
#define TR_SOFT_FLOAT 1
#endif

#if defined(__GNUC__)
#define TR_NOINLINE  __attribute__((noinline))
#define TR_ALIGNED16 __attribute__((aligned(16)))
#define TR_SMALL     __attribute__((cold)) /* seldom runs, or not for long: small before fast */
#define TR_FAST      __attribute__((hot, noinline)) /* runs long, whoever calls it */
#else
#define TR_SMALL
#define TR_FAST
#define TR_NOINLINE
#define TR_ALIGNED16
#endif

/* Four turns of the next loop as one, in their order: halves the instructions of a short body. */
#if defined(__clang__)
#define TR_UNROLL _Pragma("clang loop unroll_count(4)")
#elif defined(__GNUC__)
#define TR_UNROLL _Pragma("GCC unroll 4")
#else
#define TR_UNROLL
#endif

/* Built without adaptation? Then `adapt` programs are passed over. */
#if defined(TR_NO_ADAPT)
enum { TR_ADAPT = 0 };
#else
enum { TR_ADAPT = 1 };
#endif

/* ---- the blob in place ---- */

enum {
    TR_MAJOR = 0,
    TR_MINOR = 2,
    TR_ADAPTER_MINOR = 1,
    TR_CRC_START = 0x10,
    TR_DIGEST_START = 0x30
};
enum { TR_F32 = 1, TR_F16 = 2, TR_I8 = 3, TR_T2 = 4, TR_T2D = 5, TR_I16 = 6 };

typedef struct {
    uint8_t magic[4];
    uint16_t major, minor;
    uint32_t total_bytes, crc32;
    uint8_t digest[32];
    uint32_t digest_end, section_count, infer_arena, adapt_arena;
    char name[32];
} TR_ALIAS tr_blob_header;

typedef struct {
    uint8_t type[4];
    uint32_t offset, bytes, count;
} TR_ALIAS tr_section;

typedef struct {
    uint32_t kind, channels, length;
    float sample_rate_hz;
    uint32_t outputs, input_scale, patch, reserved[9];
} TR_ALIAS tr_io;

typedef struct {
    uint8_t dtype, reserved0[3];
    uint32_t rows, cols, offset, bytes;
    float gamma;
    uint32_t reserved1[2];
} TR_ALIAS tr_tensor;

typedef struct {
    uint32_t in, out, rank;
    float scale, init_bound;
    uint32_t a, b, reserved;
} TR_ALIAS tr_adapter;

typedef struct {
    uint32_t input, logits, state, flags, reserved[4];
} TR_ALIAS tr_program;

typedef struct {
    uint8_t op, flags;
    uint16_t n0, n1, n2;
    uint32_t operand[7]; /* dst, a .. f */
    uint32_t imm;
} TR_ALIAS tr_instr;

typedef struct {
    uint8_t magic[4];
    uint16_t major, minor;
    uint32_t total_bytes, crc32;
    uint8_t digest[32];
    uint32_t floats, steps;
    float loss;
    uint32_t reserved;
    float factors[];
} TR_ALIAS tr_adapter_file;

/* ---- instructions ---- */

enum {
    TR_PROGRAM_AFTER_INFER = 1, /* of an `adapt` program: `infer` is its forward */
    TR_PROGRAM_STREAM = 2       /* of an `infer` program: one row a call */
};
enum { TR_SPACE_NONE = 0, TR_SPACE_ARENA = 1, TR_SPACE_TENSOR = 2, TR_SPACE_ADAPTER = 3 };
#define TR_OPERAND_STEP  0x10000000u
#define TR_OPERAND_INDEX 0x0FFFFFFFu

enum {
    TR_FLAG_REVERSE = 1,
    TR_FLAG_CAUSAL = 1,
    TR_FLAG_INTERLEAVED = 1,
    TR_FLAG_BACK = 2,
    TR_FLAG_ACC = 0x80
};

enum {
    TR_OP_LOOP = 1,
    TR_OP_INPUT,
    TR_OP_ZERO,
    TR_OP_COPY,
    TR_OP_ADD,
    TR_OP_MUL,
    TR_OP_SCALE,
    TR_OP_LINEAR,
    TR_OP_QUANTIZE,
    TR_OP_TERNARY,
    TR_OP_LORA,
    TR_OP_RMSNORM,
    TR_OP_ROPE,
    TR_OP_ATTENTION,
    TR_OP_SWIGLU,
    TR_OP_SILU,
    TR_OP_GELU,
    TR_OP_RELU,
    TR_OP_MEANPOOL,
    TR_OP_LAYERNORM,
    TR_OP_EMBEDDING,
    TR_OP_QUANTIZE16,
    TR_OP_LINEAR_I8,
    TR_OP_ATTENTION_Q8,
    TR_OP_TERNARY16,
    TR_OP_ROPE16,
    TR_OP_NARROW,
    TR_OP_SWIGLU_Q8,
    TR_OP_NORM_Q8,
    TR_OP_LORA16,
    TR_OP_FORWARD_END,
    TR_OP_CROSS_ENTROPY = 64,
    TR_OP_LINEAR_T,
    TR_OP_TERNARY_T = 67,
    TR_OP_LORA_BWD,
    TR_OP_RMSNORM_BWD,
    TR_OP_ATTENTION_BWD,
    TR_OP_SWIGLU_BWD,
    TR_OP_SILU_BWD,
    TR_OP_GELU_BWD,
    TR_OP_RELU_BWD,
    TR_OP_LAYERNORM_BWD,
    TR_OP_OPTIMIZE = 79,
    TR_OP_BACKWARD_END
};

/* One execution of one instruction, operands resolved: arena operands point into the arena (at
 * their row), tensor and adapter operands at their directory entry, absent ones are NULL. */
typedef struct {
    tr_session *session;
    const tr_instr *i;
    void *dst, *a, *b, *c, *d, *e, *f;
    uint32_t t;    /* row, position */
    uint32_t rows; /* of the enclosing loop, T */
    uint32_t turn; /* rows visited before this one */
} tr_call;

typedef void tr_run(const tr_call *call);

/* Forward and backward functions, each described by its line in the tables of FORMAT.md section 5.
 */
tr_run tr_lora_bwd, tr_ternary_t, tr_attention_bwd, tr_optimize;
tr_run tr_swiglu_bwd, tr_rmsnorm_bwd;
TR_SMALL tr_run tr_input, tr_zero, tr_copy, tr_mul, tr_scale, tr_linear, tr_linear_t, tr_lora;
TR_SMALL tr_run tr_quantize, tr_quantize16, tr_ternary, tr_linear_i8, tr_attention_q8;
TR_SMALL tr_run tr_ternary16, tr_rope16, tr_narrow, tr_norm_q8, tr_swiglu_q8, tr_lora16;
TR_SMALL tr_run tr_add, tr_meanpool, tr_rmsnorm, tr_rope, tr_attention, tr_swiglu;
TR_SMALL tr_run tr_embedding, tr_layernorm, tr_layernorm_bwd;
TR_SMALL tr_run tr_silu, tr_silu_bwd, tr_gelu, tr_gelu_bwd, tr_relu, tr_relu_bwd;
TR_SMALL tr_run tr_cross_entropy;

/* acc[n1] of TERNARY or TERNARY16. */
TR_SMALL void tr_ternary_sums(const tr_call *call, tr_i32 *acc);

/* Checks every instruction of a program; `adapt` says which one it is. *work: see tr_model. */
TR_SMALL tr_status tr_program_check(const tr_model *model, const tr_program *program,
                                    uint32_t count, int adapt, uint64_t *work);

/* Runs a checked program over a session's arena; of a stream the row of the session's position. */
TR_SMALL void tr_program_run(tr_session *session, const tr_program *program, uint32_t count);

static inline uint64_t tr_splitmix64(uint64_t *state) { /* Steele, Lea and Flood 2014 */
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

/* ---- small things ---- */

/* dst q16[n] of a[n] */
void tr_quantize_row16(tr_i16 *dst, const float *a, uint32_t n);

/* Closes a row of quantised values: zeros from `used` bytes up to a multiple of `unit` bytes, 64 of
 * q8 and 16 of q16, then its scale. */
void tr_close_row(void *row, uint32_t used, uint32_t unit, float s);

static inline uint32_t tr_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float tr_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline int tr_finite(float x) {
    return (tr_bits(x) & 0x7F800000u) != 0x7F800000u;
}

/* Adapter factors lie in [-65504, 65504], so that no product with them overflows. */
static inline int tr_factor_ok(float x) {
    return x >= -65504.0f && x <= 65504.0f;
}

/* The words of an even row and the next of T2 from those of T2D. */
static inline void tr_unmerge(uint32_t even, uint32_t odd, tr_u32 rows[2]) {
    uint32_t swap = (even ^ odd) & 0xCCCCCCCCu;
    odd ^= swap;
    rows[0] = even ^ swap;
    rows[1] = (odd << 18 | odd >> 14) ^ 0x55555555u;
}

/* [a * b / 2^16] of a 32-bit and a 16-bit number */
static inline int32_t tr_mul_shift16(int32_t a, int16_t b) {
#if defined(__GNUC__) && defined(__ARM_FEATURE_DSP)
    int32_t product;
    __asm__("smulwb %0, %1, %2" : "=r"(product) : "r"(a), "r"((int32_t)b));
    return product;
#elif defined(TR_SOFT_FLOAT)
    return (a >> 16) * b + ((int32_t)((uint32_t)a & 0xFFFF) * b >> 16);
#else
    return (int32_t)((int64_t)a * b >> 16);
#endif
}

/* point[0], and point[1] << 16: two neighbours of a table at once */
static inline uint32_t tr_two_points(const uint16_t *point) {
#if defined(__ARM_FEATURE_UNALIGNED)
    uint32_t two;
    memcpy(&two, point, sizeof two);
    return two;
#else
    return point[0] | (uint32_t)point[1] << 16;
#endif
}

/* round_half_even(x) for |x| < 2^22, in the low bits, by adding 1.5 * 2^23; 0 in the low 16 bits
 * for NaN */
static inline uint32_t tr_round_even(float x) {
    return tr_bits(x + 12582912.0f) - 0x4B400000u;
}

static inline uint64_t tr_round_up(uint64_t n, uint32_t unit) {
    return (n + unit - 1) / unit * unit;
}

static inline float tr_imm(const tr_call *call) {
    return tr_from_bits(call->i->imm);
}

static inline int tr_acc(const tr_call *call) {
    return call->i->flags & TR_FLAG_ACC;
}

static inline void tr_put(float *dst, float value, int acc) {
    *dst = acc ? *dst + value : value;
}

static inline const tr_tensor *tr_tensor_at(const tr_model *model, uint32_t index) {
    return (const tr_tensor *)(const void *)model->tensors + index;
}

static inline const tr_adapter *tr_adapter_at(const tr_model *model, uint32_t index) {
    return (const tr_adapter *)(const void *)model->adapters + index;
}

/* The adaptation state in the arena, block 0 .. 3: factors, gradients, first and second moments. */
static inline float *tr_state_block(const tr_session *session, uint32_t block) {
    const tr_program *program = (const tr_program *)(const void *)session->model->adapt;
    uint32_t block_bytes = (uint32_t)tr_round_up(4 * session->model->adapter_floats, 16);
    return (float *)(void *)(session->arena + program->state + block * block_bytes);
}

#endif
