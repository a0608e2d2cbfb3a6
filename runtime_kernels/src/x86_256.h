// Traits of 256-bit registers: two vectors of 8 columns make a block.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "kernels.h"
#include "unroll.h"

namespace bitvox {
namespace {

struct Ymm {
    using Bytes = __m256i;
    using Ints = __m256i;
    using Floats = __m256;
    static constexpr int kVectors = 2;
    static constexpr int kBytes = 32;
    static constexpr int kProductRows = 6, kProductVectors = 2;
    static constexpr int kStepRows = 0;
    static int code_bias(int) { return 0; }

    template <int q>
    static BITVOX_INLINE __m256i quad(const int8_t* row) {
        int32_t four;
        std::memcpy(&four, row + 4 * q, 4);
        return _mm256_set1_epi32(four);
    }

    // Vector `index` of a panel, which holds bytes.
    template <int bits>
    using Panel = Bytes;
    static constexpr int panel_bytes(int) { return 1; }
    template <int bits>
    static BITVOX_INLINE void store_panel(uint8_t* panel, int index, Bytes codes) {
        store(panel + index * kBytes, codes);
    }
    template <int bits>
    static BITVOX_INLINE Bytes load_panel(const uint8_t* panel, int index) {
        return load(panel + index * kBytes);
    }

    static BITVOX_INLINE __m256i load(const void* p) {
        return _mm256_loadu_si256(static_cast<const __m256i*>(p));
    }
    static BITVOX_INLINE __m256 load(const float* p) { return _mm256_loadu_ps(p); }
    static BITVOX_INLINE __m256 load_halves(const uint16_t* p) {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    }
    static BITVOX_INLINE void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
    static BITVOX_INLINE void store(float* p, __m256 v) { _mm256_storeu_ps(p, v); }
    static BITVOX_INLINE __m256i broadcast(int32_t v) { return _mm256_set1_epi32(v); }
    static BITVOX_INLINE __m256 broadcast(float v) { return _mm256_set1_ps(v); }

    // Right for positive counts. 16-bit lanes: what crosses a byte is noise that a mask removes.
    template <int count>
    static BITVOX_INLINE __m256i shift(__m256i v) {
        if constexpr (count > 0) return _mm256_srli_epi16(v, count);
        else if constexpr (count < 0) return _mm256_slli_epi16(v, -count);
        else return v;
    }
    // Bits of `high` where the mask is set, of `low` elsewhere.
    template <int bits>
    static BITVOX_INLINE __m256i select(__m256i high, __m256i low) {
        const __m256i mask = _mm256_set1_epi8(char(bits));
        return _mm256_or_si256(_mm256_and_si256(mask, high), _mm256_andnot_si256(mask, low));
    }
    template <int bits>
    static BITVOX_INLINE __m256i mask(__m256i v) {
        return _mm256_and_si256(v, _mm256_set1_epi8(char(bits)));
    }

    // One byte per column to both halves of its word.
    static BITVOX_INLINE __m256i widen_steps(const uint8_t* steps) {
        const __m256i words = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(steps)));
        return _mm256_or_si256(words, _mm256_slli_epi32(words, 16));
    }
    static BITVOX_INLINE __m256i multiply_pairs(__m256i a, __m256i b) { return _mm256_mullo_epi16(a, b); }
    static BITVOX_INLINE __m256i add_bytes(__m256i a, __m256i b) { return _mm256_add_epi8(a, b); }
    static BITVOX_INLINE __m256i subtract_bytes(__m256i a, __m256i b) { return _mm256_sub_epi8(a, b); }
    static BITVOX_INLINE __m256i bytes(int v) { return _mm256_set1_epi8(char(v)); }

    static BITVOX_INLINE __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
    static BITVOX_INLINE __m256i multiply(__m256i a, __m256i b) { return _mm256_mullo_epi32(a, b); }
    static BITVOX_INLINE __m256 multiply(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
    static BITVOX_INLINE __m256 fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
    static BITVOX_INLINE __m256 to_float(__m256i v) { return _mm256_cvtepi32_ps(v); }
};

}  // namespace
}  // namespace bitvox
