// Fills the table of one instruction set from the templates: every width, every height, both kinds of scale.
//
// The traits V state the heights (kHeights, kGroupedHeights), what a panel holds (panel_kind) and what unpacking
// subtracts from every code (code_bias).
#pragma once

#include "rows.h"
#include "tiles.h"

namespace bitvox {
namespace {

// Calls body(Index<n>) for the n in begin..end-1 that equals `value`.
template <int begin, int end, class Body>
BITVOX_INLINE void choose(int value, Body&& body) {
    unroll<begin, end>([&](auto n) {
        if (n == value) body(n);
    });
}

template <class V, int bits, int first, int tallest, int blocks, template <class, int, int, int> class Source>
BITVOX_INLINE void run_plain(const Tile& t, int rows) {
    choose<first, tallest + 1>(rows, [&](auto r) { tile<V, bits, r, blocks, Source>(t); });
}

template <class V, int bits, int first, int tallest, int blocks, template <class, int, int, int> class Source>
BITVOX_INLINE void run_grouped(const Tile& t, int rows) {
    choose<first, tallest + 1>(rows, [&](auto r) { grouped_tile<V, bits, r, blocks, Source>(t); });
}

constexpr int at_least_one(int rows) { return rows > 1 ? rows : 1; }

template <class V, int bits, int blocks>
BITVOX_INLINE void run_packed(const Tile& t, int rows) {
    constexpr int plain = V::kHeights.packed, grouped = V::kGroupedHeights.packed;
    if (rows == 0) return tile<V, bits, 0, blocks, PackedSource>(t);
    if (t.group_blocks == t.k_blocks) run_plain<V, bits, 1, at_least_one(plain), blocks, PackedSource>(t, rows);
    else run_grouped<V, bits, 1, at_least_one(grouped), blocks, PackedSource>(t, rows);
}

template <class V>
void packed_tile(const Tile& t, int bits, int rows, int blocks) {
    choose<2, 9>(bits, [&](auto b) {
        if (blocks == 1) return run_packed<V, b, 1>(t, rows);
        if (blocks == 2) return run_packed<V, b, 2>(t, rows);
        if (t.group_blocks == t.k_blocks) tile<V, b, 1, 4, PackedSource>(t);
        else grouped_tile<V, b, 1, 4, PackedSource>(t);
    });
}

template <class V, int bits, int blocks>
BITVOX_INLINE void run_panel(const Tile& t, int rows) {
    if (t.group_blocks == t.k_blocks) run_plain<V, bits, 1, V::kHeights.panel, blocks, PanelSource>(t, rows);
    else run_grouped<V, bits, 1, V::kGroupedHeights.panel, blocks, PanelSource>(t, rows);
}

template <class V>
void panel_tile(const Tile& t, int bits, int rows, int blocks) {
    choose<2, 9>(bits, [&](auto b) {
        constexpr int kind = V::panel_kind(b);
        if (blocks == 2) run_panel<V, kind, 2>(t, rows);
        else run_panel<V, kind, 1>(t, rows);
    });
}

template <class V>
constexpr Kernels make_kernels(const char* name, bool (*supported)()) {
    return {name,       supported,   V::kHeights, V::kGroupedHeights,  packed_tile<V>, panel_tile<V>,
            V::code_bias, magnitude, quantise, quantise_calibrated, sum,
            quantise_frames, quantise_frames_calibrated, transpose, gelu};
}

}  // namespace
}  // namespace bitvox
