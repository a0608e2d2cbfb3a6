// The two tiles, for every width and every instruction set whose traits V provide:
//
//   Bytes, Ints, Floats   vectors of byte codes, int32 and float with the same number of columns
//   kVectors              vectors per block of 16 columns
//   Sum<bits>             running dot products; start, add (one quad), finish (to Ints)
//   quad<q>               activations 4q..4q+3 of a row, ready for Sum::add<q>
//   load, store, shift, select, mask, add, multiply, fma, …
//
// A packed tile unpacks in registers, multiplies, and leaves the codes in a panel on the way: the unpacking hides
// behind the multiplications of the first rows, and the rows that follow find plain bytes in L1.
#pragma once

#include "kernels.h"
#include "unpack.h"

namespace bitvox {
namespace {

template <class V, int bits, int rows, int vectors>
struct Accumulators {
    typename V::template Sum<bits> sum[rows > 0 ? rows : 1][vectors];

    BITVOX_INLINE void start() {
        unroll<0, rows>([&](auto r) { unroll<0, vectors>([&](auto c) { sum[r][c].start(); }); });
    }

    template <int q>
    BITVOX_INLINE void add(const typename V::Bytes (&codes)[vectors], const int8_t* x, ptrdiff_t stride) {
        unroll<0, rows>([&](auto r) {
            const auto four = V::template quad<q>(x + r * stride);
            unroll<0, vectors>([&](auto c) { sum[r][c].template add<q>(codes[c], four); });
        });
    }
};

// Turns finished integer sums into outputs, in the one order of operations that all instruction sets share.
template <class V, int bits, int rows, int vectors>
struct Outputs {
    using Ints = typename V::Ints;
    using Floats = typename V::Floats;
    static constexpr int kColumns = 16 / V::kVectors;

    // The integer sum of (code - zero) * (q - q_zero), from the sum of code * q. `at` counts columns over all groups.
    static BITVOX_INLINE Ints corrected(const Tile& t, Ints sum, int32_t offset, size_t at) {
        Ints shift = V::broadcast(offset);
        if (t.zeros) shift = V::multiply(V::load(t.zeros + at), shift);
        if (t.corrections) shift = V::add(shift, V::load(t.corrections + at));
        return V::add(sum, shift);
    }

    static BITVOX_INLINE void write(const Tile& t, Accumulators<V, bits, rows, vectors>& acc) {
        unroll<0, rows>([&](auto r) {
            unroll<0, vectors>([&](auto c) {
                const int at = c * kColumns;
                const Ints sum = corrected(t, acc.sum[r][c].finish(), t.x_offsets[r], at);
                if (t.sums) {
                    V::store(t.sums + r * t.y_stride + at, sum);
                } else {
                    const Floats scale = V::multiply(V::load(t.scales + at), V::broadcast(t.x_scales[r]));
                    V::store(t.y + r * t.y_stride + at, V::fma(V::to_float(sum), scale, V::load(t.bias + at)));
                }
            });
        });
    }

    // Adds one group to the float totals.
    static BITVOX_INLINE void gather(const Tile& t, int group, int groups, Accumulators<V, bits, rows, vectors>& acc,
                                     Floats (&total)[rows > 0 ? rows : 1][vectors]) {
        unroll<0, rows>([&](auto r) {
            unroll<0, vectors>([&](auto c) {
                const size_t at = (size_t(group) * vectors + c) * kColumns;
                const Ints sum = corrected(t, acc.sum[r][c].finish(), t.x_offsets[r * groups + group], at);
                total[r][c] = V::fma(V::to_float(sum), V::load(t.scales + at), total[r][c]);
            });
        });
    }

    static BITVOX_INLINE void write(const Tile& t, const Floats (&total)[rows > 0 ? rows : 1][vectors]) {
        unroll<0, rows>([&](auto r) {
            unroll<0, vectors>([&](auto c) {
                const int at = c * kColumns;
                V::store(t.y + r * t.y_stride + at,
                         V::fma(total[r][c], V::broadcast(t.x_scales[r]), V::load(t.bias + at)));
            });
        });
    }
};

// One k block from packed lines.
template <class V, int bits, int rows, int blocks>
struct PackedSource {
    static constexpr int kVectors = blocks * V::kVectors;
    static BITVOX_INLINE void block(const Tile& t, int k, Accumulators<V, bits, rows, kVectors>& acc) {
        const uint8_t* lines = t.packed + k * t.packed_step;
        uint8_t* panel = t.panel + k * t.panel_step;
        const int8_t* x = t.x + k * kBlockDepth;
        unroll<0, kQuads>([&](auto q) {
            typename V::Bytes codes[kVectors];
            unroll<0, kVectors>([&](auto c) {
                constexpr int block_index = c / V::kVectors, part = c % V::kVectors;
                codes[c] = unpack<V, bits, q>(lines + block_index * bits * kLineBytes + part * V::kBytes);
                if constexpr (rows != 1) V::store(panel + (q * kVectors + c) * V::kBytes, codes[c]);
            });
            acc.template add<q>(codes, x, t.x_stride);
        });
    }
};

// One k block from a panel.
template <class V, int bits, int rows, int blocks>
struct PanelSource {
    static constexpr int kVectors = blocks * V::kVectors;
    static BITVOX_INLINE void block(const Tile& t, int k, Accumulators<V, bits, rows, kVectors>& acc) {
        const uint8_t* panel = t.panel + k * t.panel_step;
        const int8_t* x = t.x + k * kBlockDepth;
        unroll<0, kQuads>([&](auto q) {
            typename V::Bytes codes[kVectors];
            unroll<0, kVectors>([&](auto c) { codes[c] = V::load(panel + (q * kVectors + c) * V::kBytes); });
            acc.template add<q>(codes, x, t.x_stride);
        });
    }
};

template <class V, int bits, int rows, int blocks, template <class, int, int, int> class Source>
BITVOX_NOINLINE void tile(const Tile& t) {
    constexpr int vectors = blocks * V::kVectors;
    using Out = Outputs<V, bits, rows, vectors>;
    Accumulators<V, bits, rows, vectors> acc;
    acc.start();
    for (int k = 0; k < t.k_blocks; ++k) Source<V, bits, rows, blocks>::block(t, k, acc);
    Out::write(t, acc);
}

template <class V, int bits, int rows, int blocks, template <class, int, int, int> class Source>
BITVOX_NOINLINE void grouped_tile(const Tile& t) {
    constexpr int vectors = blocks * V::kVectors;
    using Out = Outputs<V, bits, rows, vectors>;
    const int groups = t.k_blocks / t.group_blocks;
    typename V::Floats total[rows > 0 ? rows : 1][vectors];
    unroll<0, rows>([&](auto r) { unroll<0, vectors>([&](auto c) { total[r][c] = V::broadcast(0.0f); }); });
    for (int group = 0; group < groups; ++group) {
        Accumulators<V, bits, rows, vectors> acc;
        acc.start();
        for (int k = group * t.group_blocks; k < (group + 1) * t.group_blocks; ++k) {
            Source<V, bits, rows, blocks>::block(t, k, acc);
        }
        Out::gather(t, group, groups, acc, total);
    }
    Out::write(t, total);
}

}  // namespace
}  // namespace bitvox
