// The two tiles, for every width and every instruction set whose traits V provide:
//
//   Bytes, Ints, Floats   vectors of byte codes, int32 and float with the same number of columns
//   kVectors              vectors per block of 16 columns
//   Sum<bits>             running dot products; start, add (one quad), finish (to Ints)
//   quad<q>               activations 4q..4q+3 of a row, ready for Sum::add<q>
//   load, store, shift, select, mask, add, multiply, fma, …
//
// A packed tile unpacks in registers, multiplies, and leaves the codes in a panel on the way: the unpacking
// hides behind the multiplications of the first rows, and the rows that follow find plain bytes in L1.
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

    template <int q, class Codes>
    BITVOX_INLINE void add(const Codes (&codes)[vectors], const int8_t* x, ptrdiff_t stride) {
        unroll<0, rows>([&](auto r) {
            const auto four = V::template quad<q>(x + r * stride);
            unroll<0, vectors>([&](auto c) { sum[r][c].template add<q>(codes[c], four); });
        });
    }
};

// The integer sum of (code - zero) * (q - q_zero), from the sum of code * q. `at` counts columns over all
// groups.
template <class V>
BITVOX_INLINE typename V::Ints corrected(const Tile& t, typename V::Ints sum, int32_t offset, size_t at) {
    auto shift = V::broadcast(offset);
    if (t.zeros) shift = V::multiply(V::load(t.zeros + at), shift);
    if (t.corrections) shift = V::add(shift, V::load(t.corrections + at));
    return V::add(sum, shift);
}

// From a finished sum to outputs; this and the next two fix the one order of roundings that all instruction
// sets share.
template <class V>
BITVOX_INLINE void write_sum(const Tile& t, typename V::Ints raw, int row, int column) {
    const auto sum = corrected<V>(t, raw, t.x_offsets[row], column);
    const ptrdiff_t at = row * t.y_stride + column;
    if (t.sums) return V::store(t.sums + at, sum);
    const auto scale = V::multiply(V::load(t.scales + column), V::broadcast(t.x_scales[row]));
    V::store(t.y + at, V::fma(V::to_float(sum), scale, V::load(t.bias + column)));
}

template <class V>
BITVOX_INLINE void add_group(const Tile& t, typename V::Ints raw, int32_t offset, size_t at,
                             typename V::Floats& total) {
    total = pinned(V::fma(V::to_float(corrected<V>(t, raw, offset, at)), V::load(t.scales + at), total));
}

template <class V>
BITVOX_INLINE void write_total(const Tile& t, typename V::Floats total, int row, int column) {
    V::store(t.y + row * t.y_stride + column,
             V::fma(total, V::broadcast(t.x_scales[row]), V::load(t.bias + column)));
}

// What becomes of an unpacked code: nothing, or with steps one of 8 bits. Two codes are multiplied at once in
// 16 bits, because no product needs more than a byte.
template <class V, int bits, bool steps>
struct StepOf {
    BITVOX_INLINE typename V::Bytes operator()(typename V::Bytes codes) const { return codes; }
};
template <class V, int bits>
struct StepOf<V, bits, true> {
    typename V::Bytes step, base;  // step in every 16 bits, 128 - step * half the range in every byte

    StepOf() = default;
    explicit BITVOX_INLINE StepOf(typename V::Bytes widened) : step(widened) {
        const auto half = V::multiply_pairs(V::template shift<1 - bits>(widened), V::bytes(1));
        base = V::subtract_bytes(V::bytes(128), half);
    }
    BITVOX_INLINE typename V::Bytes operator()(typename V::Bytes codes) const {
        return V::add_bytes(V::multiply_pairs(codes, step), base);
    }
};

// One k block from packed lines; `steps` tells whether codes have them.
template <class V, int bits, int rows, int blocks, bool steps>
struct Lines {
    static constexpr int kVectors = blocks * V::kVectors;
    static constexpr int kSumBits = steps ? 8 : bits;
    using Sums = Accumulators<V, kSumBits, rows, kVectors>;

    static BITVOX_INLINE void block(const Tile& t, int k, Sums& acc) {
        const uint8_t* lines = t.packed + k * t.packed_step;
        uint8_t* panel = t.panel + k * t.panel_step;
        const int8_t* x = t.x + k * kBlockDepth;
        Step step[kVectors];
        unroll<0, kVectors>([&](auto c) { step[c] = step_of<c>(t, k); });
        if constexpr (rows == 1) return in_order(lines, step, x, acc);
        unroll<0, kQuads>([&](auto q) {
            typename V::Bytes codes[kVectors];
            keep_order(lines);
            unroll<0, kVectors>([&](auto c) {
                codes[c] = code<q, c>(lines, step[c]);
                V::template store_panel<kSumBits>(panel, q * kVectors + c, codes[c]);
            });
            acc.template add<q>(codes, x, t.x_stride);
        });
    }

  private:
    using Step = StepOf<V, bits, steps>;
    static constexpr int kColumns = kBlockColumns / V::kVectors;

    template <int c>
    static BITVOX_INLINE Step step_of(const Tile& t, int k) {
        if constexpr (!steps) return {};
        else {
            const ptrdiff_t group = (t.first_block + k) >> t.step_shift;
            const uint8_t* block = t.steps + c / V::kVectors * t.step_stride + group * kBlockColumns;
            return Step(V::widen_steps(block + c % V::kVectors * kColumns));
        }
    }

    // Vector c of quad q.
    template <int q, int c>
    static BITVOX_INLINE typename V::Bytes code(const uint8_t* lines, const Step& step) {
        constexpr int at = c / V::kVectors * bits * kLineBytes + c % V::kVectors * V::kBytes;
        return step(unpack<V, bits, q>(lines + at));
    }

    // A single row waits for memory: it reads line after line, which the hardware prefetches.
    static BITVOX_INLINE void in_order(const uint8_t* lines, const Step (&step)[kVectors], const int8_t* x,
                                       Sums& acc) {
        unroll<0, blocks * kQuads>([&](auto i) {
            constexpr int b = i / kQuads, q = i % kQuads;
            keep_order(lines);
            unroll<0, V::kVectors>([&](auto part) {
                constexpr int c = b * V::kVectors + part;
                acc.sum[0][c].template add<q>(code<q, c>(lines, step[c]), V::template quad<q>(x));
            });
        });
    }
};

template <class V, int bits, int rows, int blocks>
using PackedSource = Lines<V, bits, rows, blocks, false>;
template <class V, int bits, int rows, int blocks>
using SteppedSource = Lines<V, bits, rows, blocks, true>;

// One k block from a panel.
template <class V, int bits, int rows, int blocks>
struct PanelSource {
    static constexpr int kVectors = blocks * V::kVectors;
    static constexpr int kSumBits = bits;
    static BITVOX_INLINE void block(const Tile& t, int k, Accumulators<V, bits, rows, kVectors>& acc) {
        const uint8_t* panel = t.panel + k * t.panel_step;
        const int8_t* x = t.x + k * kBlockDepth;
        unroll<0, kQuads>([&](auto q) {
            typename V::template Panel<bits> codes[kVectors];
            keep_order(panel);
            unroll<0, kVectors>(
                [&](auto c) { codes[c] = V::template load_panel<bits>(panel, q * kVectors + c); });
            acc.template add<q>(codes, x, t.x_stride);
        });
    }
};

template <int rows, int vectors, class Body>
BITVOX_INLINE void each(Body&& body) {
    unroll<0, rows>([&](auto r) { unroll<0, vectors>([&](auto c) { body(r, c); }); });
}

template <class V, int bits, int rows, int blocks, template <class, int, int, int> class Source>
BITVOX_NOINLINE void tile(const Tile& t) {
    constexpr int vectors = blocks * V::kVectors, columns = kBlockColumns / V::kVectors;
    using From = Source<V, bits, rows, blocks>;
    Accumulators<V, From::kSumBits, rows, vectors> acc;
    acc.start();
    for (int k = 0; k < t.k_blocks; ++k) From::block(t, k, acc);
    each<rows, vectors>([&](auto r, auto c) { write_sum<V>(t, acc.sum[r][c].finish(), r, c * columns); });
}

template <class V, int bits, int rows, int blocks, template <class, int, int, int> class Source>
BITVOX_NOINLINE void grouped_tile(const Tile& t) {
    constexpr int vectors = blocks * V::kVectors, columns = kBlockColumns / V::kVectors;
    const int groups = t.k_blocks / t.group_blocks;
    typename V::Floats total[rows][vectors];
    each<rows, vectors>([&](auto r, auto c) { total[r][c] = V::broadcast(0.0f); });
    for (int group = 0, k = 0; group < groups; ++group) {
        Accumulators<V, bits, rows, vectors> acc;
        acc.start();
        for (const int end = k + t.group_blocks; k < end; ++k)
            Source<V, bits, rows, blocks>::block(t, k, acc);
        each<rows, vectors>([&](auto r, auto c) {
            const size_t at = (size_t(group) * vectors + c) * columns;
            add_group<V>(t, acc.sum[r][c].finish(), t.x_offsets[r * groups + group], at, total[r][c]);
        });
    }
    each<rows, vectors>([&](auto r, auto c) { write_total<V>(t, total[r][c], r, c * columns); });
}

}  // namespace
}  // namespace bitvox
