/* kernels.c - the inner loops, compiled per instruction set from simd.h, gemm.h, rows.h,
 * layers.h, activations.h and ternary.h, and the choice among them at run time. A build without
 * optimisation, where wide vectors would only cost compile time, has the portable ones alone. */
#include "internal.h"
#include "kernels.h"

#define TE_JOIN_(a, b) te_##a##_##b
#define TE_JOIN(a, b)  TE_JOIN_(a, b)

#if defined(__GNUC__)
#define TE_ALWAYS_INLINE __attribute__((always_inline))
#if defined(__clang__)
#define TE_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TE_UNROLL _Pragma("GCC unroll 16")
#endif
#define TE_PREFETCH(p)       __builtin_prefetch(p)
#define TE_PREFETCH_WRITE(p) __builtin_prefetch(p, 1)
#define TE_PORTABLE_BYTES    16
/* Vectors for sums in double, which are wider than the instruction set's on some. */
typedef double te_double4 __attribute__((vector_size(32)));
typedef int64_t te_long4 __attribute__((vector_size(32)));
typedef te_float te_float4
    __attribute__((vector_size(4 * sizeof(te_float)), aligned(sizeof(te_float)), may_alias));
#else
#define TE_ALWAYS_INLINE
#define TE_UNROLL
#define TE_PREFETCH(p)       ((void)(p))
#define TE_PREFETCH_WRITE(p) ((void)(p))
#define TE_PORTABLE_BYTES    0
#endif

#ifdef TE_DOUBLE
typedef long long te_int;
#define TE_ROUND_MAGIC 6755399441055744.0 /* 1.5 * 2^52 */
#define TE_LIBM_EXP    exp
#define TE_LIBM_EXPM1  expm1
#define TE_LIBM_LOG    log
#define TE_LIBM_SQRT   sqrt
#else
typedef int te_int;
#define TE_ROUND_MAGIC 12582912.0f /* 1.5 * 2^23 */
#define TE_LIBM_EXP    expf
#define TE_LIBM_EXPM1  expm1f
#define TE_LIBM_LOG    logf
#define TE_LIBM_SQRT   sqrtf
#endif

/* Read from element 8 - n, a vector whose first n lanes are set. */
static const te_int te_lane_mask[16] = {-1, -1, -1, -1, -1, -1, -1, -1};

static const te_float te_count[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* 2 sqrt(2/pi) and that times 0.044715 */
#define TE_GELU_LINEAR ((te_float)1.5957691216057308)
#define TE_GELU_CUBIC  ((te_float)0.07135481627260025)

/* Lanes of the low and of the high halves of two vectors in turn. */
#define TE_ZIP_LOW_2(a, b)  __builtin_shufflevector(a, b, 0, 2)
#define TE_ZIP_HIGH_2(a, b) __builtin_shufflevector(a, b, 1, 3)
#define TE_ZIP_LOW_4(a, b)  __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define TE_ZIP_HIGH_4(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define TE_ZIP_LOW_8(a, b)  __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define TE_ZIP_HIGH_8(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define TE_ZIP_LOW_16(a, b)                                                                        \
    __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define TE_ZIP_HIGH_16(a, b)                                                                       \
    __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)

/* The low bytes of lanes, and the numbers that unsigned bytes are. */
#define TE_TO_BYTES(v, type)   __builtin_convertvector(v, type)
#define TE_FROM_BYTES(v, type) __builtin_convertvector(v, type)

/* Joins the lanes of v by `join`, over ever smaller distances. */
#define TE_FOLD_2(v, join) v = join(v, __builtin_shufflevector(v, v, 1, 0))
#define TE_FOLD_4(v, join)                                                                         \
    v = join(v, __builtin_shufflevector(v, v, 2, 3, 0, 1));                                        \
    v = join(v, __builtin_shufflevector(v, v, 1, 0, 3, 2))
#define TE_FOLD_8(v, join)                                                                         \
    v = join(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3));                            \
    v = join(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5));                            \
    v = join(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6))
#define TE_FOLD_16(v, join)                                                                        \
    v = join(v,                                                                                    \
             __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)); \
    v = join(v,                                                                                    \
             __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)); \
    v = join(v,                                                                                    \
             __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)); \
    v = join(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14))

/* Products of bytes, where there are kernels for them. */
#define TE_TERNARY_ROWS_portable NULL
#ifdef TE_DOUBLE
#define TE_TERNARY_ROWS_avx2 NULL
#else
#define TE_TERNARY_ROWS_avx2 te_ternary_rows_avx2
#endif

/* `wide` made the kernels that compute much, `suffix` those that wait for memory. */
#define TE_TABLE(label, wide, suffix)                                                              \
    static const te_kernels te_kernels_##wide = {                                                  \
        .name = label,                                                                             \
        .gemm = te_gemm_##wide,                                                                    \
        .transpose = te_pack_transposed_##wide,                                                    \
        .add = te_add_##suffix,                                                                    \
        .move = te_move_##suffix,                                                                  \
        .mul = te_mul_##suffix,                                                                    \
        .scale = te_scale_##suffix,                                                                \
        .axpy = te_axpy_##suffix,                                                                  \
        .mul_add = te_mul_add_##suffix,                                                            \
        .dot = te_dot_##suffix,                                                                    \
        .sum_squares = te_sum_squares_##wide,                                                      \
        .total = te_total_##wide,                                                                  \
        .total_abs = te_total_abs_##suffix,                                                        \
        .codes = te_codes_##suffix,                                                                \
        .trits = te_trits_##suffix,                                                                \
        .dequantize = te_dequantize_##suffix,                                                      \
        .ternary_rows = TE_TERNARY_ROWS_##suffix,                                                  \
        .exp_row = te_exp_row_##suffix,                                                            \
        .softmax_back = te_softmax_back_##suffix,                                                  \
        .softmax_columns = te_softmax_columns_##wide,                                              \
        .softmax_columns_back = te_softmax_columns_back_##wide,                                    \
        .activation[TE_ACT_RELU] = {te_relu_##suffix, te_relu_back_##suffix},                      \
        .activation[TE_ACT_SIGMOID] = {te_sigmoid_##suffix, te_sigmoid_back_##suffix},             \
        .activation[TE_ACT_TANH] = {te_tanh_##suffix, te_tanh_back_##suffix},                      \
        .activation[TE_ACT_SILU] = {te_silu_##wide, te_silu_back_##wide},                          \
        .activation[TE_ACT_GELU] = {te_gelu_##wide, te_gelu_back_##wide},                          \
        .activation[TE_ACT_EXP] = {te_exp_##suffix, te_exp_back_##suffix},                         \
        .activation[TE_ACT_LOG] = {te_log_##suffix, te_log_back_##suffix},                         \
        .gated[TE_GATED_SWIGLU] = {te_swiglu_##wide, te_swiglu_back_##wide},                       \
        .gated[TE_GATED_GEGLU] = {te_geglu_##wide, te_geglu_back_##wide},                          \
        .norm = te_norm_##wide,                                                                    \
        .norm_back = te_norm_back_##wide,                                                          \
        .rotate = te_rotate_##suffix,                                                              \
        .adam = te_adam_##suffix,                                                                  \
    }

/* ---- Portable: 16-byte vectors, which every 64-bit target has, or scalars. On 64-bit Arm these
 * are NEON's, with its fused product and 32 registers. ---- */

#if defined(__aarch64__) && defined(__GNUC__)
#define TE_NEON
#define TE_PORTABLE_NAME "neon"
#define TE_PORTABLE_ROWS 8
#define TE_FUSED         te_neon_fma
#ifdef TE_DOUBLE
#define TE_NEON_LANES "2d"
#else
#define TE_NEON_LANES "4s"
#endif
/* a * b + c, without <arm_neon.h> and its compile time */
#define te_neon_fma(a, b, c)                                                                       \
    __extension__({                                                                                \
        te_vec_portable te_sum = (c);                                                              \
        __asm__("fmla %0." TE_NEON_LANES ", %1." TE_NEON_LANES ", %2." TE_NEON_LANES               \
                : "+w"(te_sum)                                                                     \
                : "w"((te_vec_portable)(a)), "w"((te_vec_portable)(b)));                           \
        te_sum;                                                                                    \
    })
#else
#define TE_PORTABLE_NAME "portable"
#define TE_PORTABLE_ROWS 4
#endif

/* Where there are better ones, these are compiled for size. */
#if defined(__x86_64__) && defined(__OPTIMIZE__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("Os")
#define TE_PORTABLE_SMALL
#endif

#define TE_SUFFIX portable
#define TE_TARGET
#define TE_VECTOR_BYTES TE_PORTABLE_BYTES
#define TE_TILE_ROWS    TE_PORTABLE_ROWS
#ifdef TE_DOUBLE
#define TE_ZIP_LOW  TE_ZIP_LOW_2
#define TE_ZIP_HIGH TE_ZIP_HIGH_2
#define TE_FOLD     TE_FOLD_2
#else
#define TE_ZIP_LOW  TE_ZIP_LOW_4
#define TE_ZIP_HIGH TE_ZIP_HIGH_4
#define TE_FOLD     TE_FOLD_4
#endif
#include "simd.h"
#include "gemm.h"
#include "rows.h"
#include "layers.h"
#include "activations.h"
TE_TABLE(TE_PORTABLE_NAME, portable, portable);
#include "simd_end.h"
#ifdef TE_PORTABLE_SMALL
#pragma GCC pop_options
#endif

#if defined(__x86_64__) && defined(__GNUC__) && defined(__OPTIMIZE__)
#define TE_X86

typedef char te_char32 __attribute__((vector_size(32)));
typedef int te_int8 __attribute__((vector_size(32)));

#if defined(__GNUC__) && !defined(__clang__) && !defined(TE_DOUBLE)
/* GCC converts bytes one by one, unless it is told what to do. */
typedef char te_char16 __attribute__((vector_size(16)));
typedef long long te_long2 __attribute__((vector_size(16)));
typedef char te_char8 __attribute__((vector_size(8)));
#undef TE_TO_BYTES
#undef TE_FROM_BYTES
#define TE_TO_BYTES(v, type)   ((type)te_to_bytes_avx2((te_int8)(v)))
#define TE_FROM_BYTES(v, type) __builtin_convertvector(te_from_bytes_avx2((te_char8)(v)), type)

static inline __attribute__((target("avx2"), always_inline)) te_char8 te_to_bytes_avx2(te_int8 v) {
    const te_char32 low = {0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                           0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
    const te_int8 packed = (te_int8)__builtin_ia32_pshufb256((te_char32)v, low);
    const int halves[2] = {packed[0], packed[4]};
    te_char8 bytes;
    memcpy(&bytes, halves, sizeof bytes);
    return bytes;
}

static inline __attribute__((target("avx2"), always_inline)) te_int8
te_from_bytes_avx2(te_char8 v) {
    long long bits;
    memcpy(&bits, &v, sizeof bits);
    return (te_int8)__builtin_ia32_pmovzxbd256((te_char16)(te_long2){bits, 0});
}
#endif

#define TE_SUFFIX       avx2
#define TE_TARGET       __attribute__((target("avx2,fma")))
#define TE_VECTOR_BYTES 32
#define TE_TILE_ROWS    6
#ifdef TE_DOUBLE
#define TE_ZIP_LOW                  TE_ZIP_LOW_4
#define TE_ZIP_HIGH                 TE_ZIP_HIGH_4
#define TE_FOLD                     TE_FOLD_4
#define TE_MAX                      __builtin_ia32_maxpd256
#define TE_MIN                      __builtin_ia32_minpd256
#define TE_FUSED                    __builtin_ia32_vfmaddpd256
#define TE_GCC_SQUARE_ROOT(a)       __builtin_ia32_sqrtpd256(a)
#define TE_MASKED_LOAD(p, mask)     __builtin_ia32_maskloadpd256((const te_vec_avx2 *)(p), mask)
#define TE_MASKED_STORE(p, mask, v) __builtin_ia32_maskstorepd256((te_vec_avx2 *)(p), mask, v)
#else
#define TE_ZIP_LOW                  TE_ZIP_LOW_8
#define TE_ZIP_HIGH                 TE_ZIP_HIGH_8
#define TE_FOLD                     TE_FOLD_8
#define TE_MAX                      __builtin_ia32_maxps256
#define TE_MIN                      __builtin_ia32_minps256
#define TE_FUSED                    __builtin_ia32_vfmaddps256
#define TE_GCC_SQUARE_ROOT(a)       __builtin_ia32_sqrtps256(a)
#define TE_MASKED_LOAD(p, mask)     __builtin_ia32_maskloadps256((const te_vec_avx2 *)(p), mask)
#define TE_MASKED_STORE(p, mask, v) __builtin_ia32_maskstoreps256((te_vec_avx2 *)(p), mask, v)
#endif
#include "simd.h"
#include "gemm.h"
#include "rows.h"
#include "layers.h"
#include "activations.h"
#ifndef TE_DOUBLE
#include "ternary.h"
#endif
TE_TABLE("avx2", avx2, avx2);
#include "simd_end.h"

/* Passes that wait for memory gain nothing from wider vectors. */

/* A bit mask of the first n lanes. */
#define TE_FIRST(n) ((1u << (n)) - 1)

#if defined(__clang__)
#define TE_WIDE(name, a, b) __builtin_ia32_##name(a, b, 4)
#else
#define TE_WIDE(name, a, b) __builtin_ia32_##name##_mask(a, b, a, -1, 4)
#endif

#define TE_SUFFIX       avx512
#define TE_TARGET       __attribute__((target("avx512f,avx512dq,avx2,fma")))
#define TE_VECTOR_BYTES 64
#define TE_TILE_ROWS    8
#ifdef TE_DOUBLE
#define TE_ZIP_LOW                TE_ZIP_LOW_8
#define TE_ZIP_HIGH               TE_ZIP_HIGH_8
#define TE_FOLD                   TE_FOLD_8
#define TE_MAX(a, b)              TE_WIDE(maxpd512, a, b)
#define TE_MIN(a, b)              TE_WIDE(minpd512, a, b)
#define TE_FUSED(a, b, c)         __builtin_ia32_vfmaddpd512_mask(a, b, c, -1, 4)
#define TE_GCC_SQUARE_ROOT(a)     __builtin_ia32_sqrtpd512_mask(a, a, -1, 4)
#define TE_LOAD_FIRST(p, n, rest) __builtin_ia32_loadupd512_mask(p, rest, TE_FIRST(n))
#define TE_STORE_FIRST(p, n, v)   __builtin_ia32_storeupd512_mask(p, v, TE_FIRST(n))
#else
#define TE_ZIP_LOW                TE_ZIP_LOW_16
#define TE_ZIP_HIGH               TE_ZIP_HIGH_16
#define TE_FOLD                   TE_FOLD_16
#define TE_MAX(a, b)              TE_WIDE(maxps512, a, b)
#define TE_MIN(a, b)              TE_WIDE(minps512, a, b)
#define TE_FUSED(a, b, c)         __builtin_ia32_vfmaddps512_mask(a, b, c, -1, 4)
#define TE_GCC_SQUARE_ROOT(a)     __builtin_ia32_sqrtps512_mask(a, a, -1, 4)
#define TE_LOAD_FIRST(p, n, rest) __builtin_ia32_loadups512_mask(p, rest, TE_FIRST(n))
#define TE_STORE_FIRST(p, n, v)   __builtin_ia32_storeups512_mask(p, v, TE_FIRST(n))
#endif
#include "simd.h"
#include "gemm.h"
#include "layers.h"
#define TE_GATES_ONLY
#include "activations.h"
#undef TE_GATES_ONLY
TE_TABLE("avx512", avx512, avx2);
#include "simd_end.h"

static int te_has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static int te_has_avx512(void) {
    return te_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
}
#endif

/* ---- Choice ---- */

static const te_kernels *te_find_kernels(const char *name) {
#if defined(TE_X86)
    if (!strcmp(name, "avx512") && te_has_avx512()) return &te_kernels_avx512;
    if (!strcmp(name, "avx2") && te_has_avx2()) return &te_kernels_avx2;
#endif
    return strcmp(name, "portable") && strcmp(name, TE_PORTABLE_NAME) ? NULL : &te_kernels_portable;
}

static const te_kernels *te_best_kernels(void) {
    static const char *const order[] = {"avx512", "avx2", "portable"};
    for (int i = 0; i < 3; i++) {
        const te_kernels *kernels = te_find_kernels(order[i]);
        if (kernels) return kernels;
    }
    return NULL;
}
