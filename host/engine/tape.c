/* tape.c - records operations in the order of execution and runs their gradients in reverse. */
#include "internal.h"

static int te_backward_node(te_ctx *ctx, te_node *node);

/* Makes room for one more element in a growing array; 0 on failure. */
static int te_reserve(te_ctx *ctx, void **array, int64_t count, int64_t *capacity, size_t size) {
    if (count < *capacity) return 1;
    if (te_injected_failure(ctx)) return 0;
    int64_t wanted = *capacity ? 2 * *capacity : 64;
    void *grown = realloc(*array, (size_t)wanted * size);
    if (!grown) {
        te_fail(ctx, TE_ERR_MEMORY, "out of memory: a tape of %lld entries", (long long)wanted);
        return 0;
    }
    *array = grown;
    *capacity = wanted;
    return 1;
}

static void te_free_saved(te_ctx *ctx, te_node *node) {
    for (int i = 0; i < TE_MAX_SAVED; i++) te_free(ctx, node->saved[i]);
}

/* Whether an operation on t must keep what its backward pass needs. */
static int te_needs_grad(const te_ctx *ctx, const te_tensor *t) {
    return ctx->recording && t && t->requires_grad;
}

/* Ends an operation: takes over the reference to `out` and the saved blocks of `node`, puts the
 * node on the tape when recording, and returns `out` by the ownership rule in force. */
static te_tensor *te_record(te_ctx *ctx, const te_node *node, te_tensor *out) {
    te_node copy = *node;
    if (ctx->recording
            ? !te_reserve(ctx, (void **)&ctx->nodes, ctx->node_count, &ctx->node_capacity,
                          sizeof *ctx->nodes)
            : !ctx->own_results && !te_reserve(ctx, (void **)&ctx->results, ctx->result_count,
                                               &ctx->result_capacity, sizeof *ctx->results)) {
        te_free_saved(ctx, &copy);
        te_release(out);
        return NULL;
    }
    if (ctx->recording) {
        for (int i = 0; i < copy.n_in; i++) {
            te_retain(copy.in[i]);
            out->requires_grad |= copy.in[i]->requires_grad;
        }
        copy.out = te_retain(out);
        copy.lent = !ctx->own_results;
        out->node = ctx->node_count;
        out->tape = ctx->tape;
        ctx->nodes[ctx->node_count++] = copy;
    } else {
        te_free_saved(ctx, &copy);
        if (!ctx->own_results) ctx->results[ctx->result_count++] = out;
    }
    return out;
}

/* Gives up what a node holds; `keep_lent` leaves the result to the caller until te_tape_reset. */
static void te_node_clear(te_ctx *ctx, te_node *node, int keep_lent) {
    te_free_saved(ctx, node);
    for (int k = 0; k < node->n_in; k++) te_release(node->in[k]);
    te_release(node->out);
    if (node->lent && !keep_lent) te_release(node->out);
    *node = (te_node){.op = TE_OP_NONE, .out = node->lent && keep_lent ? node->out : NULL};
}

void te_tape_reset(te_ctx *ctx) {
    if (!ctx) return;
    for (int64_t i = ctx->node_count - 1; i >= 0; i--) {
        te_node_clear(ctx, &ctx->nodes[i], 0);
    }
    for (int64_t i = ctx->result_count - 1; i >= 0; i--) te_release(ctx->results[i]);
    ctx->node_count = 0;
    ctx->result_count = 0;
    ctx->given_up = 0;
    ctx->tape++;
    te_clear_error(ctx);
}

/* ---- Backward ---- */

/* After a failure halfway: leaves hold part of their gradients, and another walk would add to what
 * this one left in results. */
static te_status te_give_up(te_ctx *ctx) {
    ctx->given_up = 1;
    for (int64_t i = 0; i < ctx->node_count; i++) {
        if (ctx->nodes[i].out) te_grad_drop(ctx->nodes[i].out);
    }
    return ctx->status;
}

/* The gradient of `result` has been set; walks from its node back to the first. */
static te_status te_backward_walk(te_ctx *ctx, te_tensor *result) {
    ctx->given_up = ctx->single_use;
    for (int64_t i = result->node; i >= 0; i--) {
        te_node *node = &ctx->nodes[i];
        if (node->out->requires_grad && node->out->grad_set) {
            if (!te_backward_node(ctx, node)) return te_give_up(ctx);
            te_grad_done(node->out);
        }
        if (ctx->single_use) te_node_clear(ctx, node, node->out == result);
    }
    return TE_OK;
}

te_status te_backward_from(te_ctx *ctx, te_tensor *result, const te_float *grad) {
    int accumulate = 0;
    if (!ctx) return TE_ERR_VALUE;
    if (!result || !grad) {
        te_fail(ctx, TE_ERR_STATE, "backward: the %s is NULL", result ? "gradient" : "result");
        return ctx->status;
    }
    if (result->node < 0 || result->tape != ctx->tape || result->ctx != ctx) {
        te_fail(ctx, TE_ERR_STATE, "backward: the tensor is not a result on the present tape");
        return ctx->status;
    }
    if (ctx->given_up) {
        te_fail(ctx, TE_ERR_STATE, "backward: an earlier one has used up the tape");
        return ctx->status;
    }
    if (!result->requires_grad) {
        te_fail(ctx, TE_ERR_STATE, "backward: no input of the result requires a gradient");
        return ctx->status;
    }
    te_float *target = te_grad_buffer(result, &accumulate);
    if (!target) return te_give_up(ctx);
    memcpy(target, grad, (size_t)result->numel * sizeof *grad);
    return te_backward_walk(ctx, result);
}

te_status te_backward(te_ctx *ctx, te_tensor *loss) {
    const te_float one = 1;
    if (ctx && loss && loss->numel != 1) {
        char text[TE_SHAPE_CHARS];
        te_fail(ctx, TE_ERR_SHAPE, "backward: needs a scalar, got %s", te_shape_text(loss, text));
        return ctx->status;
    }
    return te_backward_from(ctx, loss, &one);
}

/* ---- Inspection ---- */

static const te_node *te_node_at(const te_ctx *ctx, int64_t node) {
    return ctx && node >= 0 && node < ctx->node_count ? &ctx->nodes[node] : NULL;
}

int64_t te_tape_length(const te_ctx *ctx) {
    return ctx ? ctx->node_count : 0;
}

int te_node_op(const te_ctx *ctx, int64_t node) {
    const te_node *n = te_node_at(ctx, node);
    return n ? n->op : TE_OP_NONE;
}

int te_node_input_count(const te_ctx *ctx, int64_t node) {
    const te_node *n = te_node_at(ctx, node);
    return n ? n->n_in : 0;
}

te_tensor *te_node_input(const te_ctx *ctx, int64_t node, int k) {
    const te_node *n = te_node_at(ctx, node);
    return n && k >= 0 && k < n->n_in ? n->in[k] : NULL;
}

te_tensor *te_node_output(const te_ctx *ctx, int64_t node) {
    const te_node *n = te_node_at(ctx, node);
    return n ? n->out : NULL;
}

int te_node_int_count(const te_ctx *ctx, int64_t node) {
    const te_node *n = te_node_at(ctx, node);
    return n ? n->n_int : 0;
}

int64_t te_node_int(const te_ctx *ctx, int64_t node, int k) {
    const te_node *n = te_node_at(ctx, node);
    return n && k >= 0 && k < n->n_int ? n->ints[k] : 0;
}

int te_node_float_count(const te_ctx *ctx, int64_t node) {
    const te_node *n = te_node_at(ctx, node);
    return n ? n->n_float : 0;
}

double te_node_float(const te_ctx *ctx, int64_t node, int k) {
    const te_node *n = te_node_at(ctx, node);
    return n && k >= 0 && k < n->n_float ? n->floats[k] : 0;
}
