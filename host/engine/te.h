/* te.h - public interface of ternio's training engine: tensors, a tape with reverse-mode
 * differentiation, operations, optimisers. Plain C11, no dependency but libm, no global state.
 * Compile `engine.c` (one translation unit) next to a program that includes this header.
 *
 * Python reads the part between the cdef marks and puts `typedef float te_float;` before it. */
#ifndef TE_H
#define TE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* TE_DOUBLE builds everything in double precision, for checking gradients. */
#ifdef TE_DOUBLE
typedef double te_float;
#else
typedef float te_float;
#endif

/* cdef-begin */

/* ---- Conventions -----------------------------------------------------------------------------
 *
 * A context owns the tape, the generator, the memory pool and the text of the last error; use one
 * context per thread. Memory of tensors is counted: a tensor that is retained stays valid after
 * te_tape_reset() and even after te_ctx_free().
 *
 * Who owns what:
 *   te_zeros, te_from_data      return one reference that the caller releases;
 *   operations (te_linear, ...) return a tensor that belongs to the context until te_tape_reset()
 *                               (te_retain it to keep it longer). After te_set_own_results(ctx, 1)
 *                               the caller gets one reference instead and must release it.
 *
 * Failure: an operation returns NULL, other functions a status. te_last_error() then says in one
 * line which operation failed and which shapes or values did not fit. Operations accept NULL
 * inputs and pass the failure on, so that a chain of operations needs one check, at its end; the
 * text of the first failure is kept until te_clear_error() or te_tape_reset().
 *
 * No argument crashes: NULL for a context, tensor, optimiser or array is answered by NULL, by a
 * status that is not TE_OK, by 0, or by not a number from te_item() and te_chuck_read(). But arrays
 * have to be as long as what goes with them says, and what was freed or released is not seen.
 *
 * Shapes: row-major, `[batch, time, width]` where an operation knows about time, `[..., width]`
 * where it works on the last dimension. A scalar has no dimensions. Indices and labels are int32.
 */

typedef struct te_ctx te_ctx;
typedef struct te_tensor te_tensor;
typedef struct te_optim te_optim;

typedef enum {
    TE_OK = 0,
    TE_ERR_MEMORY = 1, /* an allocation failed */
    TE_ERR_SHAPE = 2,  /* dimensions do not fit */
    TE_ERR_TYPE = 3,   /* float expected, int32 given, or the reverse */
    TE_ERR_VALUE = 4,  /* a parameter or index is out of range */
    TE_ERR_STATE = 5   /* not allowed now, e.g. backward without a recorded forward */
} te_status;

typedef enum { TE_DTYPE_FLOAT = 0, TE_DTYPE_INT32 = 1 } te_dtype;

enum { TE_MAX_DIMS = 8, TE_MAX_INPUTS = 8, TE_MAX_INTS = 16, TE_MAX_FLOATS = 4 };

/* Operations as they stand on the tape. Numbers never change; new ones are appended.
 * `in`, `int` and `float` list what te_node_input, te_node_int and te_node_float return. */
typedef enum {
    TE_OP_NONE = 0,
    TE_OP_LINEAR = 1,        /* in x, w[, b] */
    TE_OP_BITLINEAR = 2,     /* in x, w */
    TE_OP_RMSNORM = 3,       /* in x, gain; float eps */
    TE_OP_ROPE = 4,          /* in x; int head_dim, pairing, position of first row; float base */
    TE_OP_ATTENTION = 5,     /* in q, k, v; int heads, kv_heads, causal; float scale */
    TE_OP_SWIGLU = 6,        /* in a, b: silu(a) * b */
    TE_OP_MEAN_POOL = 7,     /* in x */
    TE_OP_ADD = 8,           /* in a, b */
    TE_OP_CROSS_ENTROPY = 9, /* in logits, labels[, mask]; int ignore_index */
    TE_OP_EMBEDDING = 10,    /* in table, ids */
    TE_OP_LORA = 11,         /* in y, x, a, b; float scale */
    TE_OP_RESHAPE = 12,      /* in x; int the new dimensions */
    TE_OP_MUL = 13,          /* in a, b */
    TE_OP_SCALE = 14,        /* in x; float factor */
    TE_OP_RELU = 15,         /* in x */
    TE_OP_SILU = 16,         /* in x */
    TE_OP_GELU = 17,         /* in x (tanh form) */
    TE_OP_LAYERNORM = 18,    /* in x, gain[, bias]; float eps */
    TE_OP_SOFTMAX = 19,      /* in x */
    TE_OP_MSE = 20,          /* in a, b */
    TE_OP_SIGMOID = 21,      /* in x */
    TE_OP_TANH = 22,         /* in x */
    TE_OP_EXP = 23,          /* in x */
    TE_OP_LOG = 24,          /* in x */
    TE_OP_GEGLU = 25,        /* in a, b: gelu(a) * b */
    TE_OP_LOG_SOFTMAX = 26,  /* in x */
    TE_OP_DROPOUT = 27,      /* in x; float p; not recorded in evaluation */
    TE_OP_SLICE = 28,        /* in x; int dim, start, length */
    TE_OP_CONCAT = 29,       /* in the parts; int dim */
    TE_OP_TRANSPOSE = 30,    /* in x; int the two dimensions, the lower first */
    TE_OP_MAX_POOL = 31,     /* in x */
    TE_OP_GATHER = 32,       /* in x, index */
    TE_OP_CONV1D = 33,       /* in x, w[, b]; int stride, padding before, padding after */
    TE_OP_CLIP = 34,         /* in x; float low, high */
    TE_OP_MINIMUM = 35,      /* in a, b */
    TE_OP_BROADCAST = 36,    /* in x; int the new dimensions */
    TE_OP_SUM_POOL = 37,     /* in x */
    TE_OP_COUNT
} te_op;

/* How RoPE pairs the elements of a head: (i, i + head_dim/2) or (2i, 2i + 1). */
typedef enum { TE_ROPE_SPLIT_HALF = 0, TE_ROPE_INTERLEAVED = 1 } te_rope_pairing;

/* ---- Context --------------------------------------------------------------------------------*/

te_ctx *te_ctx_new(uint64_t seed);
void te_ctx_free(te_ctx *ctx);

/* Record operations on the tape (on at the start). Switch off for inference. */
void te_set_recording(te_ctx *ctx, int on);
int te_recording(const te_ctx *ctx);

/* Training or evaluation (training at the start); read by operations that differ between them. */
void te_set_training(te_ctx *ctx, int on);
int te_training(const te_ctx *ctx);

/* 1: results of operations are handed to the caller, who releases them. 0 at the start. */
void te_set_own_results(te_ctx *ctx, int on);

/* 1: training in as little memory as possible. te_backward() gives up every operation as soon as
 * its gradient is done, and its result unless that is retained or the one te_backward() started
 * from; there is one backward pass for each tape. te_optim_zero_grad() gives up the buffers. 0 at
 * the start. */
void te_set_single_use(te_ctx *ctx, int on);

const char *te_status_text(int status);
/* Status and text of the first failure since the last clearing; TE_OK and "" when there is none. */
te_status te_last_status(const te_ctx *ctx);
const char *te_last_error(const te_ctx *ctx);
void te_clear_error(te_ctx *ctx);

/* Bytes in live tensors and buffers; bytes held from the system (with the pool); highest value of
 * the latter. te_ctx_trim gives the unused part of the pool back. */
int64_t te_bytes_used(const te_ctx *ctx);
int64_t te_bytes_held(const te_ctx *ctx);
int64_t te_bytes_peak(const te_ctx *ctx);
void te_ctx_trim(te_ctx *ctx);

/* For tests: of the allocations that follow, the n-th (from 0) fails; n < 0 switches this off. */
void te_fail_allocation(te_ctx *ctx, int64_t n);

/* Name of the matrix kernels in use: "avx512", "avx2", "neon" or "portable". te_set_simd chooses by
 * that name (TE_ERR_VALUE: unknown, or not possible on this machine; a build without optimisation
 * has "portable" alone). Each gives the same result on every run; they may differ from each other
 * in the last bits. */
const char *te_simd(const te_ctx *ctx);
te_status te_set_simd(te_ctx *ctx, const char *name);

/* The function of a BLAS library that makes large products in builds with -DTE_BLAS (see blas.c),
 * "" in others. */
const char *te_blas(void);

/* Threads that share the work of large operations (1 at the start, at most 64). Results do not
 * depend on their number. The child of a fork() goes on with its one thread until it sets their
 * number again. */
int te_threads(const te_ctx *ctx);
te_status te_set_threads(te_ctx *ctx, int threads);

/* ---- Random numbers (xoshiro256++) ------------------------------------------------------------*/

void te_seed(te_ctx *ctx, uint64_t seed);
void te_rng_state(const te_ctx *ctx, uint64_t state[4]);
void te_rng_set_state(te_ctx *ctx, const uint64_t state[4]); /* all zeros are not taken */
uint64_t te_random_u64(te_ctx *ctx);
double te_random_uniform(te_ctx *ctx); /* [0, 1) */
double te_random_normal(te_ctx *ctx);  /* mean 0, deviation 1 */

te_status te_fill(te_tensor *t, double value);
te_status te_fill_uniform(te_tensor *t, double low, double high);
te_status te_fill_normal(te_tensor *t, double mean, double deviation);
/* For weights [out, in, ...]: fan_in = numel / out, fan_out = numel / in.
 * Kaiming: U(-b, b), b = sqrt(3) * gain / sqrt(fan_in); gain sqrt(2) for ReLU, 1 for linear.
 * Xavier:  U(-b, b), b = gain * sqrt(6 / (fan_in + fan_out)). */
te_status te_init_kaiming(te_tensor *t, double gain);
te_status te_init_xavier(te_tensor *t, double gain);

/* ---- Tensors --------------------------------------------------------------------------------*/

/* New tensor of zeros. */
te_tensor *te_zeros(te_ctx *ctx, int dtype, int ndim, const int64_t *shape);

/* Tensor over memory of the caller (contiguous, aligned for its type), without a copy. When the
 * last reference goes, release(owner) is called once; release may be NULL. On failure (NULL) it
 * is not called. */
typedef void (*te_release_fn)(void *owner);
te_tensor *te_from_data(te_ctx *ctx, int dtype, int ndim, const int64_t *shape, void *data,
                        te_release_fn release, void *owner);

/* The same over memory in which the elements of dimension i lie stride[i] elements apart (of any
 * sign); data is the place of the first one. */
te_tensor *te_from_strided(te_ctx *ctx, int dtype, int ndim, const int64_t *shape,
                           const int64_t *stride, void *data, te_release_fn release, void *owner);

te_tensor *te_retain(te_tensor *t); /* returns t */
void te_release(te_tensor *t);      /* NULL is allowed */
int te_refcount(const te_tensor *t);

int64_t te_tensor_id(const te_tensor *t); /* unique within its context, never reused */
int te_tensor_dtype(const te_tensor *t);
int te_ndim(const te_tensor *t);
const int64_t *te_shape(const te_tensor *t);  /* ndim entries */
const int64_t *te_stride(const te_tensor *t); /* ndim entries, in elements */
int64_t te_numel(const te_tensor *t);
int te_is_contiguous(const te_tensor *t); /* its elements follow each other in row-major order */
/* The first element; the one at [i, j, ...] is stride[0] * i + stride[1] * j + ... further on. */
te_float *te_data(te_tensor *t);    /* NULL when the tensor is int32 */
int32_t *te_data_i32(te_tensor *t); /* NULL when the tensor is float */
double te_item(const te_tensor *t); /* the first element; not a number when there is none */

/* Gradient: same shape as the tensor, contiguous, NULL while there is none. The buffer of a leaf
 * lives as long as the tensor. Gradients of intermediate results are given up during te_backward()
 * unless te_retain_grad() was called. te_zero_grad makes the gradient absent again. */
te_float *te_grad(te_tensor *t);
te_float *te_grad_create(te_tensor *t); /* as te_grad, zero-filled first when absent */
void te_zero_grad(te_tensor *t);
void te_retain_grad(te_tensor *t);
int te_requires_grad(const te_tensor *t);
te_status te_set_requires_grad(te_tensor *t, int on); /* floats only; not for results */
int te_is_leaf(const te_tensor *t);                   /* not a result of a recorded operation */

/* ---- Tape -----------------------------------------------------------------------------------*/

/* Every operation is recorded while recording is on, whether or not a gradient is needed, in the
 * order of execution: one node per call of an operation. Nodes are numbered from 0. */
int64_t te_tape_length(const te_ctx *ctx);
void te_tape_reset(te_ctx *ctx);

int te_node_op(const te_ctx *ctx, int64_t node); /* te_op; TE_OP_NONE when there is no such node */
const char *te_op_name(int op);                  /* "linear", "bitlinear", ... */
int te_node_input_count(const te_ctx *ctx, int64_t node);
te_tensor *te_node_input(const te_ctx *ctx, int64_t node, int k); /* borrowed */
te_tensor *te_node_output(const te_ctx *ctx, int64_t node);       /* borrowed */
int te_node_int_count(const te_ctx *ctx, int64_t node);
int64_t te_node_int(const te_ctx *ctx, int64_t node, int k);
int te_node_float_count(const te_ctx *ctx, int64_t node);
double te_node_float(const te_ctx *ctx, int64_t node, int k);

/* Gradients of a scalar with respect to every tensor that requires one are added to te_grad().
 * te_backward_from starts at any result with the given gradient (numel values). The tape stays, so
 * that it can be read, or run again from another result (but see te_set_single_use). A pass that
 * fails for memory uses it up: the next answers TE_ERR_STATE until te_tape_reset(), and gradients
 * of leaves hold part of the failed pass until te_zero_grad(). */
te_status te_backward(te_ctx *ctx, te_tensor *loss);
te_status te_backward_from(te_ctx *ctx, te_tensor *result, const te_float *grad);

/* ---- Operations -----------------------------------------------------------------------------*/

/* y = x w^T + b.  x [..., in], w [out, in], b [out] or NULL -> [..., out] */
te_tensor *te_linear(te_ctx *ctx, te_tensor *x, te_tensor *w, te_tensor *b);

/* BitNet b1.58 (arXiv 2402.17764): ternary weights with one scale, int8 activations with one scale
 * per vector; gradients by the straight-through estimator, taken with the quantised operands.
 * x [..., in], w [out, in] -> [..., out] */
te_tensor *te_bitlinear(te_ctx *ctx, te_tensor *x, te_tensor *w);

/* The quantisers of te_bitlinear: w[n] -> trits in {-1, 0, 1} and the return value gamma, so that
 * gamma * trits stands for w; x[n] -> int8 and the return value s, so that q * s / 127 stands for
 * x. */
te_float te_quantize_ternary(const te_float *w, int64_t n, int8_t *trits);
te_float te_quantize_int8(const te_float *x, int64_t n, int8_t *q);

/* x / sqrt(mean(x^2) + eps) * gain over the last dimension.  x [..., n], gain [n] */
te_tensor *te_rmsnorm(te_ctx *ctx, te_tensor *x, te_tensor *gain, double eps);

/* (x - mean) / sqrt(variance + eps) * gain + bias.  x [..., n], gain [n], bias [n] or NULL */
te_tensor *te_layernorm(te_ctx *ctx, te_tensor *x, te_tensor *gain, te_tensor *bias, double eps);

/* Rotary position embedding (arXiv 2104.09864): pair i of a head is turned by
 * (offset + t) * base^(-2i/head_dim), offset below 2^31; cosine and sine are computed in double and
 * rounded. x [..., time, heads * head_dim], head_dim even */
te_tensor *te_rope(te_ctx *ctx, te_tensor *x, int64_t head_dim, int pairing, double base,
                   int64_t offset);

/* softmax(q k^T / sqrt(head_dim)) v per head; query head h reads key/value head
 * h / (heads / kv_heads) (arXiv 2305.13245). With causal, query t sees keys up to
 * t + key_time - time.
 * q [batch..., time, heads * head_dim], k and v [batch..., key_time, kv_heads * head_dim] */
te_tensor *te_attention(te_ctx *ctx, te_tensor *q, te_tensor *k, te_tensor *v, int64_t heads,
                        int64_t kv_heads, int causal);

/* a * sigmoid(a) * b (arXiv 2002.05202). a and b of one shape */
te_tensor *te_swiglu(te_ctx *ctx, te_tensor *a, te_tensor *b);

/* Sum and mean over time.  [..., time, width] -> [..., width] */
te_tensor *te_sum_pool(te_ctx *ctx, te_tensor *x);
te_tensor *te_mean_pool(te_ctx *ctx, te_tensor *x);

/* Sum and product; b has the shape of a, or its last dimensions (then it is repeated). For other
 * pairs of shapes see te_broadcast. */
te_tensor *te_add(te_ctx *ctx, te_tensor *a, te_tensor *b);
te_tensor *te_mul(te_ctx *ctx, te_tensor *a, te_tensor *b);
te_tensor *te_scale(te_ctx *ctx, te_tensor *x, double factor);

te_tensor *te_relu(te_ctx *ctx, te_tensor *x);
te_tensor *te_silu(te_ctx *ctx, te_tensor *x);
te_tensor *te_gelu(te_ctx *ctx, te_tensor *x); /* tanh form (arXiv 1606.08415) */
/* Over the last dimension. An element of -infinity gets 0; a row of nothing else, or with a NaN or
 * +infinity, becomes NaNs, and so does the loss of such a row in te_cross_entropy. */
te_tensor *te_softmax(te_ctx *ctx, te_tensor *x);

/* Rows of a table.  table [rows, width], ids int32 [...] -> [..., width] */
te_tensor *te_embedding(te_ctx *ctx, te_tensor *table, te_tensor *ids);

/* Low-rank side path of a frozen layer (arXiv 2106.09685): y + scale * (x a^T) b^T.
 * y [..., out], x [..., in], a [rank, in], b [out, rank] */
te_tensor *te_lora(te_ctx *ctx, te_tensor *y, te_tensor *x, te_tensor *a, te_tensor *b,
                   double scale);

/* Views: reshape, broadcast, slice and transpose give tensors over the memory of x, which they keep
 * alive; what is written to one is seen in the other. Operations read any view; those that need its
 * elements in a row copy them when they take it. */

/* Same elements under other dimensions, one of which may be -1. A view, but for an x whose strides
 * cannot express it, e.g. a transposed matrix made flat: then a copy. */
te_tensor *te_reshape(te_ctx *ctx, te_tensor *x, int ndim, const int64_t *shape);

/* x repeated along dimensions of 1 and along new ones before its first, a view: shapes go together
 * from their last dimension on, as in NumPy. */
te_tensor *te_broadcast(te_ctx *ctx, te_tensor *x, int ndim, const int64_t *shape);

/* x where it is contiguous, else a copy; recorded as a reshape to its own dimensions. */
te_tensor *te_contiguous(te_ctx *ctx, te_tensor *x);

te_tensor *te_sigmoid(te_ctx *ctx, te_tensor *x);
te_tensor *te_tanh(te_ctx *ctx, te_tensor *x);
te_tensor *te_exp(te_ctx *ctx, te_tensor *x);
te_tensor *te_log(te_ctx *ctx, te_tensor *x);
/* min(max(x, low), high); the gradient passes where low <= x <= high */
te_tensor *te_clip(te_ctx *ctx, te_tensor *x, double low, double high);
/* The smaller of two; where they are equal the gradient is shared by both. One shape. */
te_tensor *te_minimum(te_ctx *ctx, te_tensor *a, te_tensor *b);
te_tensor *te_geglu(te_ctx *ctx, te_tensor *a, te_tensor *b); /* gelu(a) * b, one shape */
te_tensor *te_log_softmax(te_ctx *ctx, te_tensor *x);         /* over the last dimension */

/* In training sets elements to zero with probability p and divides the others by 1 - p; in
 * evaluation the result is x. */
te_tensor *te_dropout(te_ctx *ctx, te_tensor *x, double p);

/* `length` elements of a dimension from `start`, a view; parts joined along a dimension (1 to
 * TE_MAX_INPUTS); two dimensions exchanged, a view. A negative dimension counts from the end. */
te_tensor *te_slice(te_ctx *ctx, te_tensor *x, int dim, int64_t start, int64_t length);
te_tensor *te_concat(te_ctx *ctx, int count, te_tensor *const *parts, int dim);
te_tensor *te_transpose(te_ctx *ctx, te_tensor *x, int first, int second);

/* Largest over time, the first of equals.  [..., time, width] -> [..., width] */
te_tensor *te_max_pool(te_ctx *ctx, te_tensor *x);

/* One element of each row.  x [..., n], index int32 [...] -> [...] */
te_tensor *te_gather(te_ctx *ctx, te_tensor *x, te_tensor *index);

/* Convolution over time with zeros around.  x [..., time, in], w [out, kernel, in], b [out] or NULL
 * -> [..., (time + left + right - kernel) / stride + 1, out] */
te_tensor *te_conv1d(te_ctx *ctx, te_tensor *x, te_tensor *w, te_tensor *b, int64_t stride,
                     int64_t left, int64_t right);

/* Mean negative log-likelihood over the labels that are not ignore_index (use -1 where none is
 * ignored); 0 when all are.  logits [..., classes], labels int32 [...] -> scalar */
te_tensor *te_cross_entropy(te_ctx *ctx, te_tensor *logits, te_tensor *labels,
                            int64_t ignore_index);

/* The same, each row counted with its weight: sum(mask * nll) / sum(mask) over those that are not
 * ignored.  mask float [...] (0 leaves a row out) or NULL; it gets no gradient */
te_tensor *te_cross_entropy_masked(te_ctx *ctx, te_tensor *logits, te_tensor *labels,
                                   te_tensor *mask, int64_t ignore_index);

/* Mean of (a - b)^2. a and b of one shape -> scalar */
te_tensor *te_mse(te_ctx *ctx, te_tensor *a, te_tensor *b);

/* ---- Optimisers -----------------------------------------------------------------------------*/

te_optim *te_sgd(te_ctx *ctx, double momentum, double weight_decay);
/* Adam (arXiv 1412.6980); weight_decay is added to the gradient. */
te_optim *te_adam(te_ctx *ctx, double beta1, double beta2, double eps, double weight_decay);
/* AdamW (arXiv 1711.05101); weight_decay shrinks the parameter by lr * weight_decay. */
te_optim *te_adamw(te_ctx *ctx, double beta1, double beta2, double eps, double weight_decay);
/* Chuck: Adam whose update is
 *     param -= lr * scale * lambda * lambda_p * m_hat / (sqrt(v_hat) + eps),  then += noise
 * 1 lambda    follows the trend of the loss's running mean: * damp while it rises by more than
 *             loss_threshold over the window, * push while it falls, drawn back towards 1 by
 *             `revert`, within lowest and highest. The trend of a window compares its newest
 *             quarter with its oldest; there is one from half a window on.
 * 2 lambda_p  follows that of the parameter's gradient norm in the same way (norm_threshold).
 * 3 noise     uniform in +-noise, set after still_steps steps with |trend| < still_threshold;
 *             decays by noise_decay a step.
 * 4 frozen    a parameter whose gradient norm is below freeze_norm for freeze_steps steps is not
 *             updated any more (0 steps: never).
 * 5 scale     every slow_interval steps: * scale_up (at most 1) where the loss's slow mean came
 *             down by the share slow_margin of the best, else after `patience` times
 *             * scale_down (at least scale_floor).
 * weight_decay as in AdamW. te_chuck_defaults fills in the usual values. */
enum { TE_CHUCK_MAX_WINDOW = 64 };
typedef struct {
    double beta1, beta2, eps, weight_decay;
    int64_t window;
    double damp, push, lowest, highest, revert;
    double loss_decay, loss_threshold, norm_threshold;
    double still_threshold;
    int64_t still_steps;
    double noise, noise_decay, freeze_norm;
    int64_t freeze_steps;
    double slow_decay;
    int64_t slow_interval;
    double slow_margin;
    int64_t patience;
    double scale_down, scale_floor, scale_up;
} te_chuck_settings;
void te_chuck_defaults(te_chuck_settings *settings);
te_optim *te_chuck(te_ctx *ctx, const te_chuck_settings *settings); /* NULL: the defaults */

/* The loss of the step that te_optim_step is about to make, for Chuck; others ignore it. */
te_status te_optim_observe(te_optim *optim, double loss);

/* What Chuck's levels hold after the last step: of the loss, or of parameter i where i >= 0.
 * Not a number for what does not exist. */
typedef enum {
    TE_CHUCK_MEAN = 0,     /* running mean of the loss; norm of the gradient of a parameter */
    TE_CHUCK_TREND = 1,    /* relative change over the window */
    TE_CHUCK_LAMBDA = 2,   /* level 1 or 2 */
    TE_CHUCK_NOISE = 3,    /* level 3; loss only */
    TE_CHUCK_FROZEN = 4,   /* level 4, 0 or 1; parameters only */
    TE_CHUCK_SCALE = 5,    /* level 5; loss only */
    TE_CHUCK_SLOW_MEAN = 6 /* level 5; loss only */
} te_chuck_trace;
double te_chuck_read(const te_optim *optim, int64_t i, int what);

/* All that Chuck's levels remember, as 8-byte words, for checkpoints: te_chuck_save writes
 * te_chuck_words() of them, te_chuck_load reads as many. Moments and steps are kept as for the
 * other optimisers, the settings are the caller's. */
int64_t te_chuck_words(const te_optim *optim);
void te_chuck_save(const te_optim *optim, uint64_t *words);
te_status te_chuck_load(te_optim *optim, const uint64_t *words, int64_t count);

void te_optim_free(te_optim *optim); /* the parameters stay */

/* Adds a parameter (a float leaf; retained). decay = 0 exempts it from weight decay. */
te_status te_optim_add(te_optim *optim, te_tensor *param, int decay);
int64_t te_optim_count(const te_optim *optim);
te_tensor *te_optim_param(const te_optim *optim, int64_t i); /* borrowed */

/* One update with rate lr; parameters without a gradient are left alone. */
te_status te_optim_step(te_optim *optim, double lr);
void te_optim_zero_grad(te_optim *optim);

/* Euclidean norm of all gradients together, before they are scaled down to max_norm where they
 * exceed it. A result that is not finite leaves the gradients alone: skip the step. So does a
 * max_norm below 0 or that is not a number. */
double te_clip_grad_norm(te_optim *optim, double max_norm);

/* State for checkpoints: slot 0 is the first moment (SGD: momentum), slot 1 the second (Adam
 * only); NULL for slots that do not exist. All are zero before the first step. */
te_float *te_optim_state(te_optim *optim, int64_t i, int slot);
int64_t te_optim_steps(const te_optim *optim);
void te_optim_set_steps(te_optim *optim, int64_t steps); /* left as it is when negative */

/* Multiplies all gradients by a factor. */
void te_scale_grad(te_optim *optim, double factor);

/* A guard of steps: it leaves out an update whose loss or gradient is not finite, and keeps a
 * dynamic scale of the loss, by which the caller multiplies it before te_backward (te_scale). After
 * such a step the scale is halved (at least 2^-24), after `patience` good ones in a row doubled up
 * to `highest`; powers of two change no result. */
typedef struct {
    double scale, highest; /* of the loss; 1 at the start */
    int64_t patience;      /* 200 */
    int64_t good;          /* steps since the scale changed */
    int64_t skipped;       /* updates left out */
    int64_t in_a_row;      /* of those the last ones, counted while the scale is not above 1 */
} te_guard;
void te_guard_start(te_guard *guard, double scale);

/* One guarded update from the gradients of `scale` times the loss: clipped to max_norm (above 0;
 * infinite: not at all), scaled back, told to te_optim_observe, te_optim_step at rate lr; then the
 * gradients are made absent. te_guard_update returns 1, or 0 where it left the update out, or -1
 * after a failure of the optimiser. `loss` is the unscaled one. */
int te_guard_update(te_guard *guard, te_optim *optim, double loss, double max_norm, double lr);

/* Schedules: the rate at a step (from 0) of `total`. Each rises linearly over `warmup` steps, the
 * last of which has the full rate lr; then it
 *   constant  stays,
 *   cosine    follows half a cosine down to `floor` at step `total`,
 *   linear    follows a line down to there,
 *   step      is multiplied by gamma after each of `parts` equal parts of the way but the last, and
 *             never falls below `floor`. */
double te_lr_constant(int64_t step, int64_t warmup, double lr);
double te_lr_cosine(int64_t step, int64_t warmup, int64_t total, double lr, double floor);
double te_lr_linear(int64_t step, int64_t warmup, int64_t total, double lr, double floor);
double te_lr_step(int64_t step, int64_t warmup, int64_t total, double lr, double floor,
                  double gamma, int64_t parts);

/* cdef-end */

#ifdef __cplusplus
}
#endif

#endif
