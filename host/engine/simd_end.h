/* simd_end.h - withdraws what defines one instruction set, so that the next can be included. */
#undef V
#undef TE_INLINE
#undef TE_SUFFIX
#undef TE_TARGET
#undef TE_VECTOR_BYTES
#undef TE_TILE_ROWS
#undef TE_ZIP_LOW
#undef TE_ZIP_HIGH
#undef TE_FUSED
#undef TE_FOLD
#undef TE_MAX
#undef TE_MIN
#undef TE_GCC_SQUARE_ROOT
#undef TE_MASKED_LOAD
#undef TE_MASKED_STORE
#undef TE_LOAD_FIRST
#undef TE_STORE_FIRST
