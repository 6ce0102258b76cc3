/* tr_math.h - the runtime's own elementary functions: only + - * / and square root in a fixed
 * order, so that every board and host gets the same bits. Defined for all inputs; errors are stated
 * beside each. */
#ifndef TR_MATH_H
#define TR_MATH_H

float tr_exp(float x);  /* 1.5 ulp; 0 below -87.33, +inf above 88.72 */
float tr_log(float x);  /* 2 ulp; NaN for x <= 0, infinity, NaN and subnormals */
float tr_tanh(float x); /* 3 ulp */
void tr_sincos(float x, float *sin,
               float *cos); /* 1e-7 absolute; |x| > 65536 and NaN are taken as 0 */

float tr_sqrt_portable(float x); /* correctly rounded, integers only */

/* Square root, correctly rounded: an instruction where there is one. TR_PORTABLE_SQRT forces the
 * integer one. */
static inline float tr_sqrt(float x) {
#if !defined(TR_PORTABLE_SQRT) && defined(__GNUC__) && defined(__arm__) && defined(__ARM_FP)
    float root;
    __asm__("vsqrt.f32 %0, %1" : "=t"(root) : "t"(x));
    return root;
#elif !defined(TR_PORTABLE_SQRT) && defined(__GNUC__) && defined(__aarch64__)
    float root;
    __asm__("fsqrt %s0, %s1" : "=w"(root) : "w"(x));
    return root;
#elif !defined(TR_PORTABLE_SQRT) && defined(__GNUC__) && defined(__SSE2__)
    float root;
    __asm__("sqrtss %1, %0" : "=x"(root) : "x"(x));
    return root;
#else
    return tr_sqrt_portable(x);
#endif
}

#endif
