// Signed 8-bit activations, n-bit codes in 16-column 4-k order, AVX-VNNI (256 bits, VEX).
#include <cpuid.h>

#include "table.h"
#include "x86_256_vnni.h"

namespace bitvox {
namespace {

// gcc 12 cannot ask for "avxvnni" by name: leaf 7, subleaf 1, EAX bit 4. That the system saves YMM follows
// from AVX2.
bool supported() {
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
        return false;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

constexpr Kernels kTable = make_kernels<YmmVnni>("avxvnni", supported);

}  // namespace

const Kernels& kernels_avxvnni() { return kTable; }

}  // namespace bitvox
