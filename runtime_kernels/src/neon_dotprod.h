// Traits of the NEON dot product (sdot): one load brings four quads of a row, each used by its lane.
#pragma once

#include "neon.h"

namespace bitvox {
namespace {

struct NeonDotprod : Neon {
    static constexpr int kRowBlocks = 1;
    static constexpr int kTileBlocks = 1;
    static constexpr Heights heights(int, bool grouped) { return grouped ? Heights{2, 2} : Heights{4, 4}; }
    static constexpr int panel_kind(int bits) { return bits < 8 ? 7 : 8; }

    template <int q>
    static BITVOX_INLINE int8x16_t quad(const int8_t* row) {
        return vld1q_s8(row + q / 4 * 16);
    }

    template <int bits>
    struct Sum {
        int32x4_t value;
        BITVOX_INLINE void start() { value = vdupq_n_s32(0); }
        template <int q>
        BITVOX_INLINE void add(uint8x16_t codes, int8x16_t quads) {
            value = vdotq_laneq_s32(value, operand<bits>(codes), quads, q % 4);
        }
        BITVOX_INLINE int32x4_t finish() const { return value; }
    };
};

}  // namespace
}  // namespace bitvox
