// Signed 8-bit activations, n-bit codes in 16-column 4-k order, AVX512-VNNI in 256 bits: for CPUs that slow
// down in 512, and the way to run the traits of AVX-VNNI on CPUs that lack its VEX encoding.
#include "table.h"
#include "x86_256_vnni.h"

namespace bitvox {
namespace {

bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

constexpr Kernels kTable = make_kernels<YmmVnni>("avx512vnni_ymm", supported);

}  // namespace

const Kernels& kernels_avx512vnni_ymm() { return kTable; }

}  // namespace bitvox
