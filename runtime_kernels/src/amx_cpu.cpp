// The AMX path: its table, and whether this process may use matrix registers. No flags of AMX or AVX512 here:
// the table is made before anything knows what the CPU has.
#include "amx_cpu.h"

#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace bitvox {
namespace {

constexpr unsigned kAmxTile = 1u << 24, kAmxInt8 = 1u << 25;  // leaf 7, EDX
constexpr long kRequestPermission = 0x1023;                   // ARCH_REQ_XCOMP_PERM
constexpr long kTileData = 18;                                // the state component of tile contents

// A system that does not know the state, or does not save it, refuses the request.
bool ask() {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if ((d & kAmxTile) == 0 || (d & kAmxInt8) == 0) return false;
#ifdef __linux__
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

bool supported() {
    if (!kernels_avx512vnni().supported()) return false;
    static const bool granted = ask();  // for the whole process, and inherited by children
    return granted;
}

Kernels make_table() {
    Kernels table = kernels_avx512vnni();
    table.name = "amx";
    table.supported = supported;
    table.matrix = &kAmxTiles;
    return table;
}

}  // namespace

const Kernels& kernels_amx() {
    static const Kernels table = make_table();
    return table;
}

}  // namespace bitvox
