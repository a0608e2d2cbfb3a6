// Signed 8-bit activations, n-bit codes in 16-column 4-k order, AVX2 without a dot product.
//
// vpmaddubsw sums two products into 16 bits and saturates. A code below 2^n times |q| <= 128, twice, T times
// over, stays below 2^15 for T = 8, 4, 2, 1 at n = 2..4, 5, 6, 7: so T quads are summed in 16 bits before
// vpmaddwd widens them. Codes of 8 bits would saturate at once; they are widened to 16 bits first.
#include "table.h"
#include "x86_256.h"

namespace bitvox {
namespace {

constexpr int quads_in_16_bits(int bits) { return bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1; }

// 8 columns of 4 k, in 16 bits: columns 0..3 and 4..7.
struct Wide {
    __m256i low, high;
};

BITVOX_INLINE Wide widened(__m256i codes) {
    return {_mm256_cvtepu8_epi16(_mm256_castsi256_si128(codes)),
            _mm256_cvtepu8_epi16(_mm256_extracti128_si256(codes, 1))};
}

template <int bits>
struct PanelOf {
    using Type = __m256i;
};
template <>
struct PanelOf<8> {
    using Type = Wide;
};

struct Avx2 : Ymm {
    static constexpr int kRowBlocks = 1;
    static constexpr int kTileBlocks = 1;
    static constexpr Heights heights(int bits, bool grouped) {
        return {0, bits == 8 && grouped ? 1 : bits == 8 || grouped ? 2 : 3};
    }
    // Sums depend on the width only through T.
    static constexpr int panel_kind(int bits) { return bits < 4 ? 4 : bits; }

    // Panels of 8-bit codes are widened once, for all rows.
    template <int bits>
    using Panel = typename PanelOf<bits>::Type;
    static constexpr int panel_bytes(int bits) { return bits == 8 ? 2 : 1; }
    template <int bits>
    static BITVOX_INLINE void store_panel(uint8_t* panel, int index, __m256i codes) {
        if constexpr (bits == 8) {
            const Wide wide = widened(codes);
            store(panel + index * 64, wide.low);
            store(panel + index * 64 + 32, wide.high);
        } else {
            store(panel + index * kBytes, codes);
        }
    }
    template <int bits>
    static BITVOX_INLINE Panel<bits> load_panel(const uint8_t* panel, int index) {
        if constexpr (bits == 8) return {load(panel + index * 64), load(panel + index * 64 + 32)};
        else return load(panel + index * kBytes);
    }

    template <int bits>
    struct Sum {
        static constexpr int kRun = quads_in_16_bits(bits);
        __m256i value, run;

        BITVOX_INLINE void start() { value = _mm256_setzero_si256(); }

        template <int q>
        BITVOX_INLINE void add(__m256i codes, __m256i four) {
            const __m256i products = _mm256_maddubs_epi16(codes, four);
            run = q % kRun == 0 ? products : pinned(_mm256_add_epi16(run, products));
            if constexpr (q % kRun == kRun - 1) {
                value = pinned(_mm256_add_epi32(value, _mm256_madd_epi16(run, _mm256_set1_epi16(1))));
            }
        }

        BITVOX_INLINE __m256i finish() const { return value; }
    };
};

template <>
struct Avx2::Sum<8> {
    Wide value;  // two partial sums per column

    BITVOX_INLINE void start() { value.low = value.high = _mm256_setzero_si256(); }

    template <int q>
    BITVOX_INLINE void add(Wide codes, __m256i four) {
        const __m256i x = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(four));
        value.low = pinned(_mm256_add_epi32(value.low, _mm256_madd_epi16(codes.low, x)));
        value.high = pinned(_mm256_add_epi32(value.high, _mm256_madd_epi16(codes.high, x)));
    }

    template <int q>
    BITVOX_INLINE void add(__m256i codes, __m256i four) {
        add<q>(widened(codes), four);
    }

    BITVOX_INLINE __m256i finish() const {
        return _mm256_permute4x64_epi64(_mm256_hadd_epi32(value.low, value.high), 0xd8);
    }
};

bool supported() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

constexpr Kernels kTable = make_kernels<Avx2>("avx2", supported);

}  // namespace

const Kernels& kernels_avx2() { return kTable; }

}  // namespace bitvox
