// From lines of planes to one vector of byte codes, for any width, on any instruction set.
#pragma once

#include "format.h"
#include "unroll.h"

namespace bitvox {
namespace {

// Line of plane `p` that holds quad `q`, counted from the start of the block.
template <int bits, int p, int q>
constexpr int line_of() {
    int line = 0;
    for (int i = 0; i < p; ++i) line += planes_of(bits).width[i];
    return line + q % planes_of(bits).width[p];
}

// Code bits below plane `p`.
template <int bits, int p>
constexpr int bits_below() {
    int below = bits;
    for (int i = 0; i <= p; ++i) below -= planes_of(bits).width[i];
    return below;
}

// The line that holds plane p of quad q, shifted so that the field sits at its place in the code. Other bits
// are noise.
template <class V, int bits, int p, int q>
BITVOX_INLINE typename V::Bytes field(const uint8_t* block) {
    constexpr int width = planes_of(bits).width[p];
    constexpr int place = bits_below<bits, p>();
    constexpr int slot = q / width * width;
    return V::template shift<slot - place>(V::load(block + line_of<bits, p, q>() * kLineBytes));
}

// Codes of quad q. `block` points at the vector's own columns inside the block's first line.
template <class V, int bits, int q>
BITVOX_INLINE typename V::Bytes unpack(const uint8_t* block) {
    constexpr Planes planes = planes_of(bits);
    constexpr int all = (1 << bits) - 1;
    auto code = field<V, bits, 0, q>(block);
    if constexpr (planes.count == 3) {
        constexpr int high = all >> bits_below<bits, 1>() << bits_below<bits, 1>();
        constexpr int top = all >> bits_below<bits, 0>() << bits_below<bits, 0>();
        const auto pair = V::template select<top>(code, field<V, bits, 1, q>(block));
        code = V::template select<high>(pair, field<V, bits, 2, q>(block));
    } else if constexpr (planes.count == 2) {
        constexpr int top = all >> bits_below<bits, 0>() << bits_below<bits, 0>();
        code = V::template select<top>(code, field<V, bits, 1, q>(block));
    }
    if constexpr (bits < 8) code = V::template mask<all>(code);
    return code;
}

}  // namespace
}  // namespace bitvox
