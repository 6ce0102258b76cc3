/* start.c - the least that a Cortex-M image under QEMU needs: vectors, memory set up, printing and
 * leaving by semihosting. */
#include <stdint.h>
#include <string.h>

extern uint32_t image_stack, image_data, image_data_end, image_data_load, image_bss, image_bss_end;

int main(void);
void board_print(const char *text);
void board_start(void);

enum { SYS_WRITE0 = 0x04, SYS_EXIT = 0x18, EXIT_OK = 0x20026, EXIT_FAULT = 0x20023 };

static void semihost(uint32_t operation, uintptr_t argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register uintptr_t r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

void board_print(const char *text) {
    semihost(SYS_WRITE0, (uintptr_t)text);
}

static void fault(void) {
    board_print("fault\n");
    semihost(SYS_EXIT, EXIT_FAULT);
    for (;;) {
    }
}

void board_start(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: FPU on */
    __asm__ volatile("dsb\nisb");
#endif
    memcpy(&image_data, &image_data_load, (size_t)((char *)&image_data_end - (char *)&image_data));
    memset(&image_bss, 0, (size_t)((char *)&image_bss_end - (char *)&image_bss));
    main();
    semihost(SYS_EXIT, EXIT_OK);
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &image_stack,  (void *)board_start, (void *)fault, (void *)fault,
    (void *)fault, (void *)fault,       (void *)fault,
};
