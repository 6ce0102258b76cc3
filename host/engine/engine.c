/* engine.c - the whole training engine as one translation unit:
 *     cc -O2 program.c engine.c -lm
 * The parts are in order of dependence; te.h is the interface. */
#include "internal.h"
#include "kernels.h"

/* Quantisation must round x * (127 / s) to a float before it rounds it to a code, as boards do, so
 * the compiler may not fuse products with sums. Where fusing is wanted, V(fma) asks for it. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include "kernels.c"

/* What calls the kernels is compiled for size: its time is not here. */
#if defined(__OPTIMIZE__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os")
#endif

#include "context.c"
#include "pool.c"
#include "threads.c"
#include "random.c"
#include "tensor.c"
#include "views.c"
#include "tape.c"

#include "blas.c"
#include "checks.c"
#include "ops_attention.c"
#include "ops_linear.c"
#include "ops_bitlinear.c"
#include "ops_conv.c"
#include "ops_norm.c"
#include "ops_pointwise.c"
#include "ops_reduce.c"
#include "ops_shape.c"
#include "chuck.c"
#include "optim.c"
#include "schedule.c"

#include "optable.c"
