// Signed 8-bit activations, n-bit codes in 16-column 4-k order, AVX512-VNNI.
#include "table.h"
#include "x86_512.h"

namespace bitvox {
namespace {

struct Avx512Vnni : Zmm {
    static constexpr int kRowBlocks = 4;
    static constexpr int kTileBlocks = 2;
    static constexpr Heights heights(int, bool grouped) { return grouped ? Heights{4, 6} : Heights{8, 8}; }
    static constexpr int panel_kind(int) { return 8; }  // bytes, whatever the width was
    static int code_bias(int) { return 0; }
};

bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

constexpr Kernels kTable = make_kernels<Avx512Vnni>("avx512vnni", supported);

}  // namespace

const Kernels& kernels_avx512vnni() { return kTable; }

}  // namespace bitvox
