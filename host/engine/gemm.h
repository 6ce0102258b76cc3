/* gemm.h - the matrix product c = a b for one instruction set, included by kernels.c after simd.h.
 * Blocked after Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008),
 * with small matrices in mind: b is copied into panels of two vectors width only where it lies the
 * wrong way round or is too large for the cache, a only where the rows of a tile would be read from
 * many pages; else both are read in place through two strides. */

/* Stores the sums of a tile with what is asked for besides, or at the right edge of c. */
static TE_TARGET void V(put_tile)(int rows, int vectors, V(vec) sum[TE_TILE_ROWS][2],
                                  const te_tile *t) {
    for (int j = 0; j < vectors; j++) {
        const int64_t n = t->columns - j * V(lanes);
        te_float *c = t->c + j * V(lanes);
        V(vec) bias = t->bias ? V(load_n)(t->bias + j * V(lanes), n) : V(set)(0);
        for (int i = 0; i < rows; i++, c += t->c_row) {
            V(vec) value = t->accumulate ? V(load_n)(c, n) + sum[i][j] : sum[i][j];
            V(store_n)(c, value * V(set)(t->row_scale ? t->row_scale[i] : 1) + bias, n);
        }
    }
}

/* One tile of c: `rows` (at most TE_TILE_ROWS) times `vectors` (1 or 2) vectors, of which `columns`
 * elements exist. Both are constants in every inlined copy, so that the sums stay in registers. */
TE_INLINE void V(tile)(const int rows, const int vectors, const te_tile *t) {
    V(vec) sum[TE_TILE_ROWS][2];
    const te_float *b = t->b;
    const te_float *a[TE_TILE_ROWS];
    const int64_t a_col = t->a_col;
    TE_UNROLL
    for (int i = 0; i < rows; i++) {
        a[i] = t->a + i * t->a_row;
        TE_PREFETCH_WRITE(t->c + i * t->c_row); /* what is stored below; it arrives meanwhile */
        if (vectors == 2) TE_PREFETCH_WRITE(t->c + i * t->c_row + V(lanes));
        sum[i][0] = V(set)(0);
        sum[i][1] = V(set)(0);
    }
    for (int64_t p = 0; p < t->k; p++) {
        V(vec) b0 = V(load)(b);
        V(vec) b1 = vectors == 2 ? V(load)(b + V(lanes)) : b0;
        TE_UNROLL
        for (int i = 0; i < rows; i++) {
            V(vec) x = V(set)(*a[i]);
            sum[i][0] = V(fma)(x, b0, sum[i][0]);
            if (vectors == 2) sum[i][1] = V(fma)(x, b1, sum[i][1]);
            a[i] += a_col;
        }
        b += t->b_row;
    }
    if (t->columns >= vectors * V(lanes) && !t->row_scale && !t->bias) { /* the usual case */
        te_float *c = t->c;
        TE_UNROLL
        for (int i = 0; i < rows; i++, c += t->c_row) {
            TE_UNROLL
            for (int j = 0; j < vectors; j++) {
                te_float *to = c + j * V(lanes);
                V(store)(to, t->accumulate ? V(load)(to) + sum[i][j] : sum[i][j]);
            }
        }
        return;
    }
    V(vec) copy[TE_TILE_ROWS][2]; /* passing the sums on would drive these out of registers */
    TE_UNROLL
    for (int i = 0; i < rows; i++) {
        copy[i][0] = sum[i][0];
        copy[i][1] = sum[i][1];
    }
    V(put_tile)(rows, vectors, copy, t);
}

/* All rows of a block in tiles of TE_TILE_ROWS, then of half as many, then one by one. */
static TE_TARGET void V(tile_rows)(int64_t rows, int narrow, te_tile *t) {
    enum { WHOLE = TE_TILE_ROWS, HALF = TE_TILE_ROWS / 2 };
    while (rows > 0) {
        const int64_t step = rows >= WHOLE ? WHOLE : rows >= HALF ? HALF : 1;
        if (step == WHOLE && !narrow)
            V(tile)(WHOLE, 2, t);
        else if (step == WHOLE)
            V(tile)(WHOLE, 1, t);
        else if (step == HALF && !narrow)
            V(tile)(HALF, 2, t);
        else if (step == HALF)
            V(tile)(HALF, 1, t);
        else if (!narrow)
            V(tile)(1, 2, t);
        else
            V(tile)(1, 1, t);
        rows -= step;
        t->a += step * t->a_row;
        t->c += step * t->c_row;
        t->row_scale += t->row_scale ? step : 0;
    }
}

#if TE_VECTOR_BYTES
/* Transposes a square of vectors by rounds of perfect shuffles. */
TE_INLINE void V(transpose)(V(vec) v[V(lanes)]) {
    V(vec) w[V(lanes)];
    for (int step = 1; step < V(lanes); step *= 2) {
        TE_UNROLL
        for (int i = 0; i < V(lanes) / 2; i++) {
            w[2 * i] = TE_ZIP_LOW(v[i], v[i + V(lanes) / 2]);
            w[2 * i + 1] = TE_ZIP_HIGH(v[i], v[i + V(lanes) / 2]);
        }
        TE_UNROLL
        for (int i = 0; i < V(lanes); i++) v[i] = w[i];
    }
}
#endif

/* panel[p][j] = b[p + j * ld] for p < k, j < n; columns n to `width` become copies of others. */
static TE_TARGET void V(pack_transposed)(te_float *panel, const te_float *b, int64_t ld, int64_t k,
                                         int64_t n, int64_t width) {
    for (int64_t j = 0; j < width; j += V(lanes)) {
        int64_t p = 0;
#if TE_VECTOR_BYTES
        for (; p + V(lanes) <= k; p += V(lanes)) {
            const te_float *from = b + p + (j < n ? j : n - 1) * ld;
            V(vec) v[V(lanes)];
            TE_UNROLL
            for (int i = 0; i < V(lanes); i++) {
                v[i] = V(load)(from);
                TE_PREFETCH(from + 2 * V(lanes));
                from += j + i < n - 1 ? ld : 0;
            }
            V(transpose)(v);
            TE_UNROLL
            for (int i = 0; i < V(lanes); i++) V(store)(panel + (p + i) * width + j, v[i]);
        }
#endif
        for (; p < k; p++)
            for (int64_t i = j; i < j + V(lanes); i++)
                panel[p * width + i] = b[p + (i < n ? i : n - 1) * ld];
    }
}

/* pack[j / wide][p][j % wide] = b[p * ld + j] for p < k, j < n, row by row, as memory likes it; the
 * last panel has one vector where that is enough, and zeros after column n. */
static TE_TARGET void V(pack_rows)(te_float *pack, const te_float *b, int64_t ld, int64_t k,
                                   int64_t n) {
    const int64_t wide = 2 * V(lanes);
    for (int64_t p = 0; p < k; p++, b += ld) {
        for (int64_t j = 0; j < n; j += wide) {
            const int64_t width = n - j <= V(lanes) ? V(lanes) : wide;
            te_float *panel = pack + j * k + p * width;
            V(store)(panel, V(load_n)(b + j, n - j));
            if (width == wide)
                V(store)(panel + V(lanes), V(load_n)(b + j + V(lanes), n - j - V(lanes)));
        }
    }
}

/* Rows of a that lie one beside the other, copied into strips as tiles read them:
 * strips[s][p][i] = a[s * strip + i + p * ld] for p < k; what follows the last row is not used. */
enum {
    V(strip) = V(lanes) % TE_TILE_ROWS == 0   ? V(lanes)
               : TE_TILE_ROWS % V(lanes) == 0 ? TE_TILE_ROWS
                                              : V(lanes) * TE_TILE_ROWS / 2
};
static TE_TARGET void V(pack_strips)(te_float *strips, const te_float *a, int64_t ld, int64_t rows,
                                     int64_t k) {
    for (int64_t p = 0; p < k; p++, a += ld) {
        for (int64_t i = 0; i < rows; i += V(lanes)) {
            te_float *strip = strips + i / V(strip) * V(strip) * k + p * V(strip);
            V(store)(strip + i % V(strip), V(load_n)(a + i, rows - i));
        }
    }
}

/* Products of one block of b (k <= TE_BLOCK_K rows, n <= TE_BLOCK_N columns) with all rows of a. */
static TE_TARGET void V(gemm_block)(const te_gemm *g, te_float *pack, int64_t j0, int64_t n,
                                    int64_t p0, int64_t k) {
    const int64_t wide = 2 * V(lanes);
    const int transposed = g->b_col != 1;
    const int first = p0 == 0, last = p0 + k == g->k;
    const int direct = !transposed && (g->m <= TE_DIRECT_ROWS || k * g->b_row <= TE_DIRECT_FLOATS);
    const int strips = g->a_row == 1 && g->a_col >= TE_STRIP_STRIDE && g->n >= TE_STRIP_COLUMNS;
    te_float *a_pack = pack + TE_BLOCK_K * TE_BLOCK_N;
    if (!transposed && !direct) V(pack_rows)(pack, g->b + p0 * g->b_row + j0, g->b_row, k, n);
    for (int64_t i0 = 0; i0 < g->m; i0 += TE_BLOCK_M) {
        const int64_t i1 = i0 + TE_BLOCK_M < g->m ? i0 + TE_BLOCK_M : g->m;
        if (strips) V(pack_strips)(a_pack, g->a + i0 + p0 * g->a_col, g->a_col, i1 - i0, k);
        for (int64_t j = 0; j < n; j += wide) {
            const int64_t columns = n - j < wide ? n - j : wide;
            const int narrow = columns <= V(lanes);
            const int64_t width = narrow ? V(lanes) : wide;
            const te_float *b = g->b + p0 * g->b_row + (j0 + j) * g->b_col;
            te_float *panel = pack + j * k;
            te_tile t = {.k = k,
                         .a_row = g->a_row,
                         .a_col = g->a_col,
                         .c_row = g->c_row,
                         .columns = columns,
                         .accumulate = g->accumulate || !first};
            if (direct && columns == width) {
                t.b = b;
                t.b_row = g->b_row;
            } else {
                if (i0 == 0 && transposed)
                    V(pack_transposed)(panel, b, g->b_col, k, columns, width);
                else if (i0 == 0 && direct)
                    V(pack_rows)(panel, b, g->b_row, k, columns);
                t.b = panel;
                t.b_row = width;
            }
            t.bias = last && g->bias ? g->bias + j0 + j : NULL;
            t.a = g->a + i0 * g->a_row + p0 * g->a_col;
            t.c = g->c + i0 * g->c_row + j0 + j;
            t.row_scale = last && g->row_scale ? g->row_scale + i0 : NULL;
            if (!strips) {
                V(tile_rows)(i1 - i0, narrow, &t);
                continue;
            }
            t.a_row = 1;
            t.a_col = V(strip);
            for (int64_t i = i0; i < i1; i += V(strip)) {
                t.a = a_pack + (i - i0) * k;
                V(tile_rows)(i1 - i < V(strip) ? i1 - i : V(strip), narrow, &t);
            }
        }
    }
}

static TE_TARGET void V(gemm)(const te_gemm *g, te_float *pack) {
    for (int64_t j0 = 0; j0 < g->n; j0 += TE_BLOCK_N)
        for (int64_t p0 = 0; p0 < g->k || p0 == 0; p0 += TE_BLOCK_K) V(gemm_block)
    (g, pack, j0, g->n - j0 < TE_BLOCK_N ? g->n - j0 : TE_BLOCK_N, p0,
     g->k - p0 < TE_BLOCK_K ? g->k - p0 : TE_BLOCK_K);
}
