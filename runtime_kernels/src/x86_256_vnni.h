// Traits of 256-bit dot products; the unit's flags decide how they are encoded.
#pragma once

#include "x86_256.h"

namespace bitvox {
namespace {

struct YmmVnni : Ymm {
    static constexpr int kRowBlocks = 1;
    static constexpr int kTileBlocks = 1;
    static constexpr Heights heights(int, bool grouped) { return grouped ? Heights{0, 2} : Heights{4, 5}; }
    static constexpr int panel_kind(int) { return 8; }

    template <int bits>
    struct Sum {
        __m256i value;
        BITVOX_INLINE void start() { value = _mm256_setzero_si256(); }
        template <int q>
        BITVOX_INLINE void add(__m256i codes, __m256i four) {
#if defined(__AVXVNNI__)
            value = pinned(_mm256_dpbusd_avx_epi32(value, codes, four));
#else
            value = pinned(_mm256_dpbusd_epi32(value, codes, four));
#endif
        }
        BITVOX_INLINE __m256i finish() const { return value; }
    };
};

}  // namespace
}  // namespace bitvox
