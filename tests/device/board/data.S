/* data.S - blobs and windows, as files of the build folder, in read-only memory. */
    .section .rodata
    .macro FILE name, path
    .balign 16
    .global \name, \name\()_end
\name:
    .incbin "\path"
\name\()_end:
    .endm
    FILE parity_blob, example.tern
    FILE parity_floats, floats.tern
    FILE parity_rows, rows.tern
    FILE parity_odd, odd.tern
    FILE parity_stream, stream.tern
    FILE parity_text, text.tern
    FILE parity_windows, windows.bin
    FILE parity_motion, motion.bin
#if defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
