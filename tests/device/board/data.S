/* data.S - the blob and its windows, as files of the build folder, in read-only memory. */
    .section .rodata
    .balign 16
    .global parity_blob, parity_blob_end, parity_windows
parity_blob:
    .incbin "parity.tern"
parity_blob_end:
    .balign 16
parity_windows:
    .incbin "windows.bin"
#if defined(__linux__)
    .section .note.GNU-stack, "", %progbits
#endif
