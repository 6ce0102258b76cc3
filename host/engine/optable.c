/* optable.c - name and backward pass of every operation. */
#include "internal.h"

typedef struct {
    const char *name;
    int (*backward)(te_ctx *ctx, te_node *node); /* 1, or 0 after a failure */
} te_op_entry;

static const te_op_entry te_op_table[TE_OP_COUNT] = {
    [TE_OP_NONE] = {"none", NULL},
    [TE_OP_LINEAR] = {"linear", te_linear_backward},
    [TE_OP_BITLINEAR] = {"bitlinear", te_bitlinear_backward},
    [TE_OP_RMSNORM] = {"rmsnorm", te_norm_backward},
    [TE_OP_ROPE] = {"rope", te_rope_backward},
    [TE_OP_ATTENTION] = {"attention", te_attention_backward},
    [TE_OP_SWIGLU] = {"swiglu", te_gated_backward},
    [TE_OP_MEAN_POOL] = {"mean_pool", te_pool_backward},
    [TE_OP_ADD] = {"add", te_add_backward},
    [TE_OP_CROSS_ENTROPY] = {"cross_entropy", te_cross_entropy_backward},
    [TE_OP_EMBEDDING] = {"embedding", te_embedding_backward},
    [TE_OP_LORA] = {"lora", te_lora_backward},
    [TE_OP_RESHAPE] = {"reshape", te_reshape_backward},
    [TE_OP_MUL] = {"mul", te_mul_backward},
    [TE_OP_SCALE] = {"scale", te_scale_backward},
    [TE_OP_RELU] = {"relu", te_activation_backward},
    [TE_OP_SILU] = {"silu", te_activation_backward},
    [TE_OP_GELU] = {"gelu", te_activation_backward},
    [TE_OP_LAYERNORM] = {"layernorm", te_norm_backward},
    [TE_OP_SOFTMAX] = {"softmax", te_softmax_backward},
    [TE_OP_MSE] = {"mse", te_mse_backward},
    [TE_OP_SIGMOID] = {"sigmoid", te_activation_backward},
    [TE_OP_TANH] = {"tanh", te_activation_backward},
    [TE_OP_EXP] = {"exp", te_activation_backward},
    [TE_OP_LOG] = {"log", te_activation_backward},
    [TE_OP_GEGLU] = {"geglu", te_gated_backward},
    [TE_OP_LOG_SOFTMAX] = {"log_softmax", te_log_softmax_backward},
    [TE_OP_DROPOUT] = {"dropout", te_dropout_backward},
    [TE_OP_SLICE] = {"slice", te_slice_backward},
    [TE_OP_CONCAT] = {"concat", te_concat_backward},
    [TE_OP_TRANSPOSE] = {"transpose", te_transpose_backward},
    [TE_OP_MAX_POOL] = {"max_pool", te_max_pool_backward},
    [TE_OP_GATHER] = {"gather", te_gather_backward},
    [TE_OP_CONV1D] = {"conv1d", te_conv1d_backward},
    [TE_OP_CLIP] = {"clip", te_clip_backward},
    [TE_OP_MINIMUM] = {"minimum", te_minimum_backward},
    [TE_OP_BROADCAST] = {"broadcast", te_broadcast_backward},
    [TE_OP_SUM_POOL] = {"sum_pool", te_pool_backward},
};

const char *te_op_name(int op) {
    return op >= 0 && op < TE_OP_COUNT ? te_op_table[op].name : "unknown";
}

static int te_backward_node(te_ctx *ctx, te_node *node) {
    return te_op_table[node->op].backward(ctx, node);
}
