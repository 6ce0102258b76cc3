/* ternary.h - products of int8 codes and trits in integers, for AVX2; included by kernels.c. */

typedef int8_t te_byte32 __attribute__((vector_size(32), aligned(1), may_alias));
typedef int te_int8_unaligned __attribute__((vector_size(32), aligned(4), may_alias));
typedef short te_short16 __attribute__((vector_size(32)));

/* Groups of four products that a 16-bit lane can add up: 64 pairs of at most 2 * 255. */
enum { TE_TERNARY_ROWS = 4, TE_TERNARY_GROUPS = 64 };

/* Some rows of y (at most TE_TERNARY_ROWS, constant when inlined), some columns of a panel. The
 * instruction multiplies unsigned by signed bytes, so codes have 128 added, which the first row of
 * the panel takes back. */
TE_INLINE void te_ternary_tile(const int rows, const te_ternary *t, const int32_t *panel, int64_t i,
                               float *y, int64_t columns) {
    const uint8_t *codes = t->codes + i * 4 * t->groups;
    te_int8 total[TE_TERNARY_ROWS][2];
    TE_UNROLL
    for (int r = 0; r < rows; r++) {
        TE_PREFETCH_WRITE(y + r * t->out);
        total[r][0] = *(const te_int8_unaligned *)panel;
        total[r][1] = *(const te_int8_unaligned *)(panel + 8);
    }
    for (int64_t p = 0; p < t->groups;) {
        const int64_t end = p + TE_TERNARY_GROUPS < t->groups ? p + TE_TERNARY_GROUPS : t->groups;
        te_short16 part[TE_TERNARY_ROWS][2] = {{{0}}};
        for (; p < end; p++) {
            const te_byte32 *b = (const te_byte32 *)(panel + (1 + p) * TE_TERNARY_COLUMNS);
            TE_UNROLL
            for (int r = 0; r < rows; r++) {
                int word;
                memcpy(&word, codes + 4 * (r * t->groups + p), 4);
                const te_char32 a = (te_char32)((te_int8){0} + word);
                part[r][0] += (te_short16)__builtin_ia32_pmaddubsw256(a, (te_char32)b[0]);
                part[r][1] += (te_short16)__builtin_ia32_pmaddubsw256(a, (te_char32)b[1]);
            }
        }
        TE_UNROLL
        for (int r = 0; r < rows; r++) TE_UNROLL
        for (int half = 0; half < 2; half++)
            total[r][half] +=
                (te_int8)__builtin_ia32_pmaddwd256(part[r][half], (te_short16){0} + 1);
    }
    TE_UNROLL
    for (int r = 0; r < rows; r++, y += t->out)
        for (int half = 0; half < 2 && columns > 8 * half; half++) V(store_n)
    (y + 8 * half, __builtin_convertvector(total[r][half], V(vec)) * V(set)(t->row_scale[i + r]),
     columns - 8 * half);
}

/* y [rows, out] for rows first to last - 1, in blocks whose codes stay in the first-level cache. */
static TE_TARGET void te_ternary_rows_avx2(const te_ternary *t, int64_t first, int64_t last) {
    const int64_t step = TE_TERNARY_ROWS * (1 + 4096 / (t->groups * TE_TERNARY_ROWS));
    for (int64_t i0 = first; i0 < last; i0 += step) {
        const int64_t i1 = i0 + step < last ? i0 + step : last;
        for (int64_t j = 0; j < t->out; j += TE_TERNARY_COLUMNS) {
            const int32_t *panel = t->panels + j * (1 + t->groups);
            int64_t i = i0;
            for (; i + TE_TERNARY_ROWS <= i1; i += TE_TERNARY_ROWS)
                te_ternary_tile(TE_TERNARY_ROWS, t, panel, i, t->y + i * t->out + j, t->out - j);
            for (; i < i1; i++) te_ternary_tile(1, t, panel, i, t->y + i * t->out + j, t->out - j);
        }
    }
}
