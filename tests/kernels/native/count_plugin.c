/* A qemu plugin that prints how many guest instructions ran. The declarations are those of the plugin
 * interface, version 1, which Debian's qemu-user has but ships no header for. */
#include <stdint.h>
#include <stdio.h>

typedef uint64_t plugin_id;
struct translation_block;
struct plugin_info;
enum { kInlineAddU64 = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
                                           void (*callback)(plugin_id, struct translation_block*));
void qemu_plugin_register_vcpu_tb_exec_inline(struct translation_block* block, int operation, void* counter,
                                              uint64_t add);
void qemu_plugin_register_atexit_cb(plugin_id id, void (*callback)(plugin_id, void*), void* data);
size_t qemu_plugin_tb_n_insns(const struct translation_block* block);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t instructions;

static void translated(plugin_id id, struct translation_block* block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, kInlineAddU64, &instructions,
                                             qemu_plugin_tb_n_insns(block));
}

static void at_exit(plugin_id id, void* data) {
    (void)id;
    (void)data;
    fprintf(stderr, "instructions: %llu\n", (unsigned long long)instructions);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const struct plugin_info* info,
                                                               int count, char** arguments) {
    (void)info;
    (void)count;
    (void)arguments;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
