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

// The dot product with ones.
void group_dot_sums(const int8_t* q, int depth, int groups, int32_t factor, int32_t* sums) {
    const __m256i ones = _mm256_set1_epi8(1);
    for (int g = 0; g < groups; ++g) {
        __m256i total = _mm256_setzero_si256();
        for (const int8_t* end = q + depth; q < end; q += 32) {
            const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
            total = _mm256_dpbusd_epi32(total, ones, bytes);
        }
        const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
        const __m128i pair = _mm_add_epi32(half, _mm_srli_si128(half, 8));
        sums[g] = factor * (_mm_cvtsi128_si32(pair) + _mm_extract_epi32(pair, 1));
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
