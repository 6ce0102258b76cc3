/* internal.h - structures and helpers shared by the parts of engine.c. Not installed. */
#ifndef TE_INTERNAL_H
#define TE_INTERNAL_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "te.h"

enum { TE_SIZE_CLASSES = 192, TE_MAX_SAVED = 2, TE_ERROR_CHARS = 240, TE_SHAPE_CHARS = 96 };

/* The quantisers' smallest scale and divisor, and the largest int8 magnitude. */
#define TE_QUANT_EPS ((te_float)1e-5)
#define TE_QUANT_MAX ((te_float)127)

typedef struct te_kernels te_kernels;

struct te_tensor {
    te_ctx *ctx;
    int64_t id;
    int refs;
    int dtype;
    int ndim;
    int64_t shape[TE_MAX_DIMS];
    int64_t stride[TE_MAX_DIMS]; /* in elements */
    int64_t numel;
    void *data;
    int strided;           /* elements do not follow each other in row-major order */
    void *dense;           /* then: a copy in which they do, see te_make_dense */
    te_tensor *base;       /* the tensor whose data a view shares, retained */
    te_release_fn release; /* of memory that came from the caller */
    void *owner;
    int external; /* data belongs to the caller */
    te_float *grad;
    int grad_set;   /* grad holds a value; a buffer that does not is overwritten first */
    int keep_grad;  /* a result hands its gradient to `kept` when a pass is done with it */
    te_float *kept; /* sum over passes, NULL before the first */
    int requires_grad;
    int64_t node; /* index of the node that made it, -1 for leaves */
    int64_t tape; /* serial number of that tape */
};

typedef struct {
    int op;
    int n_in, n_int, n_float;
    te_tensor *in[TE_MAX_INPUTS];
    te_tensor *out;
    int lent; /* the caller has `out` until the tape goes, by a reference of its own */
    int64_t ints[TE_MAX_INTS];
    double floats[TE_MAX_FLOATS];
    void *saved[TE_MAX_SAVED]; /* pool blocks kept for the backward pass, or NULL */
} te_node;

typedef struct te_block te_block;
typedef struct te_region te_region;

struct te_ctx {
    int64_t live; /* tensors and optimisers that still point here, plus one for the owner */
    int64_t next_id;
    int recording, training, own_results, single_use;
    int given_up; /* te_backward has used up the present tape */

    te_status status;
    char error[TE_ERROR_CHARS];

    te_region *regions; /* the memory pool, see pool.c */
    te_block *bins[TE_SIZE_CLASSES];
    uint64_t bins_used[TE_SIZE_CLASSES / 64]; /* a bit for each bin that is not empty */
    int64_t bytes_used, bytes_held, bytes_peak;
    int64_t fail_in; /* allocations until the injected failure, -1 for none */

    te_node *nodes;
    int64_t node_count, node_capacity;
    int64_t tape; /* serial number of the present tape */
    te_tensor **results;
    int64_t result_count, result_capacity;

    uint64_t rng[4];

    te_float *rope_table; /* see ops_attention.c */
    int64_t rope_head_dim, rope_rows, rope_offset;
    double rope_base;

    const te_kernels *kernels;
    te_float *pack; /* workspace of matrix products, one after another for each thread */

    int threads;
    struct te_pool *pool; /* of helper threads, NULL for one thread */
};

/* pool.c */
static void *te_alloc(te_ctx *ctx, int64_t bytes);
static void te_free(te_ctx *ctx, void *payload);

/* context.c */
static void te_ctx_drop(te_ctx *ctx);
static void *te_fail(te_ctx *ctx, te_status status, const char *format, ...);

/* threads.c */
static void te_pool_free(struct te_pool *pool);

/* tensor.c */
static te_tensor *te_tensor_new(te_ctx *ctx, int dtype, int ndim, const int64_t *shape);
static te_tensor *te_tensor_frame(te_ctx *ctx, int dtype, int ndim, const int64_t *shape);
static te_tensor *te_tensor_like(te_ctx *ctx, const te_tensor *t);
static const char *te_shape_text(const te_tensor *t, char text[TE_SHAPE_CHARS]);
static te_float *te_grad_buffer(te_tensor *t, int *accumulate);
static void te_grad_drop(te_tensor *t);
static void te_grad_done(te_tensor *t);

/* views.c */
static int te_make_dense(te_tensor *t);
static void te_copy_strided(const te_tensor *t, void *dense, int back);

/* tape.c */
static te_tensor *te_record(te_ctx *ctx, const te_node *node, te_tensor *out);
static int te_needs_grad(const te_ctx *ctx, const te_tensor *t);

#endif
