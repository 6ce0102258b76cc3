/* count.c - QEMU plugin: how many instructions the guest executes between the markers
 * `mov r9, r9` and `mov r10, r10`. One decimal count per marked region goes to the file named by
 * out=. Debian's QEMU 7.2 ships the plugin interface without its header, so what is used of
 * version 1 is declared here. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

enum { PLUGIN_API = 1, NO_REGISTERS = 0, INLINE_ADD_U64 = 0 };
enum { MARK_BEGIN = 0x46C9, MARK_END = 0x46D2 };

typedef uint64_t plugin_id;
typedef struct qemu_plugin_tb block;
typedef struct qemu_plugin_insn instruction;
typedef void on_instruction(unsigned cpu, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*call)(plugin_id, block *));
void qemu_plugin_register_vcpu_insn_exec_cb(instruction *insn, on_instruction *call, int flags,
                                            void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(instruction *insn, int op, void *counter,
                                                uint64_t add);
size_t qemu_plugin_tb_n_insns(const block *tb);
instruction *qemu_plugin_tb_get_insn(const block *tb, size_t index);
const void *qemu_plugin_insn_data(const instruction *insn);

EXPORT int qemu_plugin_version = PLUGIN_API;

static uint64_t executed, started;
static FILE *out;

static void begin(unsigned cpu, void *data) {
    (void)cpu, (void)data;
    started = executed;
}

static void end(unsigned cpu, void *data) {
    (void)cpu, (void)data;
    fprintf(out, "%llu\n", (unsigned long long)(executed - started));
    fflush(out);
}

/* Every instruction but the markers adds one; the markers take the readings. No longer instruction
 * starts with their halfword. (The size that QEMU reports is wrong before the end of a page.) */
static void translated(plugin_id id, block *tb) {
    (void)id;
    for (size_t k = 0; k < qemu_plugin_tb_n_insns(tb); ++k) {
        instruction *insn = qemu_plugin_tb_get_insn(tb, k);
        uint16_t half;
        memcpy(&half, qemu_plugin_insn_data(insn), sizeof half);
        if (half == MARK_BEGIN)
            qemu_plugin_register_vcpu_insn_exec_cb(insn, begin, NO_REGISTERS, NULL);
        else if (half == MARK_END)
            qemu_plugin_register_vcpu_insn_exec_cb(insn, end, NO_REGISTERS, NULL);
        else
            qemu_plugin_register_vcpu_insn_exec_inline(insn, INLINE_ADD_U64, &executed, 1);
    }
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info;
    for (int k = 0; k < argc; ++k)
        if (strncmp(argv[k], "out=", 4) == 0) out = fopen(argv[k] + 4, "w");
    if (!out) return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
