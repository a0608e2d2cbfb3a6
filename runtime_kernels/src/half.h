// IEEE half precision in plain integers: scales are few, so no instruction set is asked for it.
#pragma once

#include <cstdint>
#include <cstring>

namespace bitvox {

inline float float_from_half(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16;
    const uint32_t magnitude = half & 0x7fff;
    uint32_t bits;
    if (magnitude >= 0x7c00) {
        bits = sign | 0x7f800000 | (magnitude & 0x3ff) << 13;
    } else if (magnitude >= 0x0400) {
        bits = sign | ((magnitude << 13) + (112u << 23));
    } else {
        const float value = float(magnitude) * 0x1p-24f;  // subnormal: exact
        std::memcpy(&bits, &value, 4);
        bits |= sign;
    }
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Round to nearest even; magnitudes from 65520 become infinity.
inline uint16_t half_from_float(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00);
    if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);
    if (magnitude < 0x38800000) {
        float positive;
        std::memcpy(&positive, &magnitude, 4);
        const float shifted =
            positive + 0.5f;  // the float adder rounds at 2^-24, half's last subnormal place
        uint32_t rounded;
        std::memcpy(&rounded, &shifted, 4);
        return uint16_t(sign | (rounded - 0x3f000000));
    }
    const uint32_t odd = magnitude >> 13 & 1;
    return uint16_t(sign | ((magnitude - (112u << 23) + 0xfff + odd) >> 13));
}

}  // namespace bitvox
