// Signed 8-bit activations, n-bit codes in 16-column 4-k order, AVX512-VNNI.
#include "table.h"
#include "x86_512.h"

namespace bitvox {
namespace {

struct Avx512Vnni : Zmm {
    static constexpr int kRowBlocks = 4;
    static constexpr int kTileBlocks = 2;
    static constexpr int kStepRows = 8;
    static constexpr Heights heights(int, bool grouped) { return grouped ? Heights{4, 6} : Heights{8, 8}; }
    static constexpr int panel_kind(int) { return 8; }  // bytes, whatever the width was
    static int code_bias(int) { return 0; }
};

bool supported() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

// The dot product with ones: two chains for whole lines, because one waits for itself.
void group_dot_sums(const int8_t* q, int depth, int groups, int32_t factor, int32_t* sums) {
    const __m512i ones = _mm512_set1_epi8(1);
    for (int g = 0; g < groups; ++g) {
        __m512i even = _mm512_setzero_si512(), odd = even;
        const int8_t* const end = q + depth;
        for (; end - q >= 4 * 32; q += 4 * 32) {
            even = _mm512_dpbusd_epi32(even, ones, _mm512_loadu_si512(q));
            odd = _mm512_dpbusd_epi32(odd, ones, _mm512_loadu_si512(q + 64));
        }
        for (; q < end; q += 32) {
            const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
            even = _mm512_dpbusd_epi32(even, ones, _mm512_zextsi256_si512(bytes));
        }
        sums[g] = factor * _mm512_reduce_add_epi32(_mm512_add_epi32(even, odd));
    }
}

constexpr Kernels with_dot_sums(Kernels kernels) {
    kernels.group_sums = group_dot_sums;
    return kernels;
}

constexpr Kernels kTable = with_dot_sums(make_kernels<Avx512Vnni>("avx512vnni", supported));

}  // namespace

const Kernels& kernels_avx512vnni() { return kTable; }

}  // namespace bitvox
