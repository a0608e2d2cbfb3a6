// Products of float matrices, whose right factor lies in memory as floats or as halves.
//
// An output's products are added in the order of depth, each by one fused multiply-add, whatever the tile: all
// instruction sets give the same bits.
#pragma once

#include <cstring>

#include "kernels.h"
#include "unroll.h"

namespace bitvox {
namespace {

constexpr int kRowVectors = 8;  // of the widest tile of a single row, which waits for memory

template <class V>
constexpr int lanes() {
    return V::kBytes / int(sizeof(float));
}

template <class V>
BITVOX_INLINE typename V::Floats load_floats(const float* from) {
    return V::load(from);
}

template <class V>
BITVOX_INLINE typename V::Floats load_floats(const uint16_t* from) {
    return V::load_halves(from);
}

BITVOX_INLINE float one_float(float value) { return value; }

// Infinities and NaN stay what they are: their exponent, moved, is the largest power of two and some.
BITVOX_INLINE float one_float(uint16_t half) {
    const uint32_t magnitude = uint32_t(half & 0x7fff) << 13, sign = uint32_t(half & 0x8000) << 16;
    float value;
    std::memcpy(&value, &magnitude, 4);
    value *= 0x1p112f;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits |= sign | (magnitude >= 0x0f800000 ? 0x7f800000 : 0);
    std::memcpy(&value, &bits, 4);
    return value;
}

template <class V, int rows, int vectors, class Element>
BITVOX_INLINE void product_tile(const Product& p, int row, int column) {
    using Floats = typename V::Floats;
    constexpr int kLanes = lanes<V>();
    Floats sums[rows][vectors];
    float* const c = p.c + row * p.c_stride + column;
    unroll<0, rows>([&](auto r) {
        unroll<0, vectors>([&](auto v) {
            sums[r][v] = p.resumes ? V::load(c + r * p.c_stride + v * kLanes) : V::broadcast(0.0f);
        });
    });
    const float* a = p.a + row * p.a_stride;
    const Element* b = static_cast<const Element*>(p.b) + column;
    for (int d = 0; d < p.depth; ++d, b += p.b_stride) {
        Floats factors[vectors];
        unroll<0, vectors>([&](auto v) { factors[v] = load_floats<V>(b + v * kLanes); });
        unroll<0, rows>([&](auto r) {
            const Floats factor = V::broadcast(a[r * p.a_stride + d]);
            unroll<0, vectors>([&](auto v) { sums[r][v] = V::fma(factor, factors[v], sums[r][v]); });
        });
    }
    unroll<0, rows>([&](auto r) {
        unroll<0, vectors>([&](auto v) { V::store(c + r * p.c_stride + v * kLanes, sums[r][v]); });
    });
}

// Columns that fill no vector.
template <class Element>
BITVOX_INLINE void product_edge(const Product& p, int row, int column) {
    for (int j = column; j < p.columns; ++j) {
        float sum = p.resumes ? p.c[row * p.c_stride + j] : 0.0f;
        const Element* b = static_cast<const Element*>(p.b) + j;
        for (int d = 0; d < p.depth; ++d, b += p.b_stride)
            sum = __builtin_fmaf(p.a[row * p.a_stride + d], one_float(*b), sum);
        p.c[row * p.c_stride + j] = sum;
    }
}

// All columns from `column` on in tiles of `vectors`, then what is left in narrower ones; returns where it ended.
template <class V, int tallest, int vectors, class Element>
BITVOX_INLINE int product_columns(const Product& p, int column) {
    constexpr int kWidth = vectors * lanes<V>();
    for (; column + kWidth <= p.columns; column += kWidth) {
        int row = 0;
        for (; row + tallest <= p.rows; row += tallest)
            product_tile<V, tallest, vectors, Element>(p, row, column);
        choose<1, tallest>(p.rows - row,
                           [&](auto rows) { product_tile<V, rows, vectors, Element>(p, row, column); });
    }
    return column;
}

template <class V, class Element>
BITVOX_INLINE void product_of(const Product& p) {
    int column = 0;
    if (p.rows == 1) column = product_columns<V, 1, kRowVectors, Element>(p, column);
    column = product_columns<V, V::kProductRows, V::kProductVectors, Element>(p, column);
    column = product_columns<V, V::kProductRows, 1, Element>(p, column);
    for (int row = 0; row < p.rows; ++row) product_edge<Element>(p, row, column);
}

template <class V>
void product(const Product& p) {
    if (p.halves) product_of<V, uint16_t>(p);
    else product_of<V, float>(p);
}

}  // namespace
}  // namespace bitvox
