// Traits of 128-bit NEON registers, without the dot product: four vectors of 4 columns make a block.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

#include "kernels.h"
#include "unroll.h"

namespace bitvox {
namespace {

struct Neon {
    using Bytes = uint8x16_t;
    using Ints = int32x4_t;
    using Floats = float32x4_t;
    static constexpr int kVectors = 4;
    static constexpr int kBytes = 16;
    static constexpr int kProductRows = 6, kProductVectors = 4;
    static constexpr int kStepRows = 0;
    // Operands are signed. Codes up to 7 bits are valid as they are; 8 bits lose 128, which is to flip the
    // top bit.
    static int code_bias(int bits) { return bits == 8 ? 128 : 0; }

    template <int bits>
    static BITVOX_INLINE int8x16_t operand(uint8x16_t codes) {
        if constexpr (bits == 8) codes = veorq_u8(codes, vdupq_n_u8(0x80));
        return vreinterpretq_s8_u8(codes);
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

    static BITVOX_INLINE uint8x16_t load(const uint8_t* p) { return vld1q_u8(p); }
    static BITVOX_INLINE int32x4_t load(const int32_t* p) { return vld1q_s32(p); }
    static BITVOX_INLINE float32x4_t load(const float* p) { return vld1q_f32(p); }
    static BITVOX_INLINE float32x4_t load_halves(const uint16_t* p) {
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
    }
    static BITVOX_INLINE void store(uint8_t* p, uint8x16_t v) { vst1q_u8(p, v); }
    static BITVOX_INLINE void store(int32_t* p, int32x4_t v) { vst1q_s32(p, v); }
    static BITVOX_INLINE void store(float* p, float32x4_t v) { vst1q_f32(p, v); }
    static BITVOX_INLINE int32x4_t broadcast(int32_t v) { return vdupq_n_s32(v); }
    static BITVOX_INLINE float32x4_t broadcast(float v) { return vdupq_n_f32(v); }

    // Right for positive counts.
    template <int count>
    static BITVOX_INLINE uint8x16_t shift(uint8x16_t v) {
        if constexpr (count > 0) return vshrq_n_u8(v, count);
        else if constexpr (count < 0) return vshlq_n_u8(v, -count);
        else return v;
    }
    // Bits of `high` where the mask is set, of `low` elsewhere.
    template <int bits>
    static BITVOX_INLINE uint8x16_t select(uint8x16_t high, uint8x16_t low) {
        return vbslq_u8(vdupq_n_u8(uint8_t(bits)), high, low);
    }
    template <int bits>
    static BITVOX_INLINE uint8x16_t mask(uint8x16_t v) {
        return vandq_u8(v, vdupq_n_u8(uint8_t(bits)));
    }

    // One byte per column to both halves of its word.
    static BITVOX_INLINE uint8x16_t widen_steps(const uint8_t* steps) {
        uint32_t four;
        std::memcpy(&four, steps, 4);
        const uint16x8_t halves = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
        const uint16x4_t low = vget_low_u16(halves);
        return vreinterpretq_u8_u16(vcombine_u16(vzip1_u16(low, low), vzip2_u16(low, low)));
    }
    static BITVOX_INLINE uint8x16_t multiply_pairs(uint8x16_t a, uint8x16_t b) {
        return vreinterpretq_u8_u16(vmulq_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
    }
    static BITVOX_INLINE uint8x16_t add_bytes(uint8x16_t a, uint8x16_t b) { return vaddq_u8(a, b); }
    static BITVOX_INLINE uint8x16_t subtract_bytes(uint8x16_t a, uint8x16_t b) { return vsubq_u8(a, b); }
    static BITVOX_INLINE uint8x16_t bytes(int v) { return vdupq_n_u8(uint8_t(v)); }

    static BITVOX_INLINE int32x4_t add(int32x4_t a, int32x4_t b) { return vaddq_s32(a, b); }
    static BITVOX_INLINE int32x4_t multiply(int32x4_t a, int32x4_t b) { return vmulq_s32(a, b); }
    static BITVOX_INLINE float32x4_t multiply(float32x4_t a, float32x4_t b) { return vmulq_f32(a, b); }
    static BITVOX_INLINE float32x4_t fma(float32x4_t a, float32x4_t b, float32x4_t c) {
        return vfmaq_f32(c, a, b);
    }
    static BITVOX_INLINE float32x4_t to_float(int32x4_t v) { return vcvtq_f32_s32(v); }
};

}  // namespace
}  // namespace bitvox
