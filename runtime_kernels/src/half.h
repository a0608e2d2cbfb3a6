// To IEEE half precision in plain integers: packing asks for no instruction set. rows.h has the way back.
#pragma once

#include <cstdint>
#include <cstring>

namespace bitvox {

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
