// Traits of 512-bit registers: one vector is a whole block of 16 columns.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "unroll.h"

namespace bitvox {
namespace {

struct Zmm {
    using Bytes = __m512i;
    using Ints = __m512i;
    using Floats = __m512;
    static constexpr int kVectors = 1;
    static constexpr int kBytes = 64;
    static constexpr int kProductRows = 6, kProductVectors = 4;

    template <int bits>
    struct Sum {
        __m512i value;
        BITVOX_INLINE void start() { value = _mm512_setzero_si512(); }
        template <int q>
        BITVOX_INLINE void add(__m512i codes, __m512i four) {
            value = pinned(_mm512_dpbusd_epi32(value, codes, four));
        }
        BITVOX_INLINE __m512i finish() const { return value; }
    };

    template <int q>
    static BITVOX_INLINE __m512i quad(const int8_t* row) {
        int32_t four;
        std::memcpy(&four, row + 4 * q, 4);
        return _mm512_set1_epi32(four);
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

    static BITVOX_INLINE __m512i load(const void* p) { return _mm512_loadu_si512(p); }
    static BITVOX_INLINE __m512 load(const float* p) { return _mm512_loadu_ps(p); }
    static BITVOX_INLINE __m512 load_halves(const uint16_t* p) {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    }
    static BITVOX_INLINE void store(void* p, __m512i v) { _mm512_storeu_si512(p, v); }
    static BITVOX_INLINE void store(float* p, __m512 v) { _mm512_storeu_ps(p, v); }
    static BITVOX_INLINE __m512i broadcast(int32_t v) { return _mm512_set1_epi32(v); }
    static BITVOX_INLINE __m512 broadcast(float v) { return _mm512_set1_ps(v); }

    // Right for positive counts. 16-bit lanes: what crosses a byte is noise that a mask removes.
    template <int count>
    static BITVOX_INLINE __m512i shift(__m512i v) {
        if constexpr (count > 0) return _mm512_srli_epi16(v, count);
        else if constexpr (count < 0) return _mm512_slli_epi16(v, -count);
        else return v;
    }
    // Bits of `high` where the mask is set, of `low` elsewhere.
    template <int bits>
    static BITVOX_INLINE __m512i select(__m512i high, __m512i low) {
        return _mm512_ternarylogic_epi32(_mm512_set1_epi8(char(bits)), high, low, 0xca);
    }
    template <int bits>
    static BITVOX_INLINE __m512i mask(__m512i v) {
        return _mm512_and_si512(v, _mm512_set1_epi8(char(bits)));
    }

    // One byte per column to both halves of its word.
    static BITVOX_INLINE __m512i widen_steps(const uint8_t* steps) {
        const __m512i words = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(steps)));
        return _mm512_or_si512(words, _mm512_slli_epi32(words, 16));
    }
    static BITVOX_INLINE __m512i multiply_pairs(__m512i a, __m512i b) { return _mm512_mullo_epi16(a, b); }
    static BITVOX_INLINE __m512i add_bytes(__m512i a, __m512i b) { return _mm512_add_epi8(a, b); }
    static BITVOX_INLINE __m512i subtract_bytes(__m512i a, __m512i b) { return _mm512_sub_epi8(a, b); }
    static BITVOX_INLINE __m512i bytes(int v) { return _mm512_set1_epi8(char(v)); }

    static BITVOX_INLINE __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
    static BITVOX_INLINE __m512i multiply(__m512i a, __m512i b) { return _mm512_mullo_epi32(a, b); }
    static BITVOX_INLINE __m512 multiply(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
    static BITVOX_INLINE __m512 fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
    static BITVOX_INLINE __m512 to_float(__m512i v) { return _mm512_cvtepi32_ps(v); }
};

}  // namespace
}  // namespace bitvox
