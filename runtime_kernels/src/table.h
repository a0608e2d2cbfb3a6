// Fills the table of one instruction set from the templates: every width, every height, both kinds of scale.
//
// The traits V state the sizes of tiles (heights, kTileBlocks, kRowBlocks, kStepRows), what a panel holds
// (panel_kind) and what unpacking subtracts from every code (code_bias).
#pragma once

#include "products.h"
#include "rows.h"
#include "tiles.h"

namespace bitvox {
namespace {

template <class V, int bits, int tallest, int blocks, template <class, int, int, int> class Source>
BITVOX_INLINE void run_plain(const Tile& t, int rows) {
    choose<1, tallest + 1>(rows, [&](auto r) { tile<V, bits, r, blocks, Source>(t); });
}

template <class V, int bits, int tallest, int blocks, template <class, int, int, int> class Source>
BITVOX_INLINE void run_grouped(const Tile& t, int rows) {
    choose<1, tallest + 1>(rows, [&](auto r) { grouped_tile<V, bits, r, blocks, Source>(t); });
}

constexpr int at_least_one(int rows) { return rows > 1 ? rows : 1; }

template <class V, int bits, int blocks>
BITVOX_INLINE void run_stepped(const Tile& t, int rows) {
    if constexpr (bits <= kMostStepBits) {
        if (rows == 0) tile<V, bits, 0, blocks, SteppedSource>(t);
        else run_plain<V, bits, at_least_one(V::kStepRows), blocks, SteppedSource>(t, rows);
    }
}

template <class V, int bits, int blocks>
BITVOX_INLINE void run_packed(const Tile& t, int rows) {
    if (t.steps) return run_stepped<V, bits, blocks>(t, rows);
    constexpr int plain = at_least_one(V::heights(bits, false).packed);
    constexpr int grouped = at_least_one(V::heights(bits, true).packed);
    if (rows == 0) return tile<V, bits, 0, blocks, PackedSource>(t);
    if (t.group_blocks == t.k_blocks) run_plain<V, bits, plain, blocks, PackedSource>(t, rows);
    else run_grouped<V, bits, grouped, blocks, PackedSource>(t, rows);
}

// Widths that only a single row may have.
template <class V, int bits, int blocks>
BITVOX_INLINE void run_wide_row(const Tile& t) {
    if constexpr (bits <= kMostStepBits) {
        if (t.steps) return tile<V, bits, 1, blocks, SteppedSource>(t);
    }
    if (t.group_blocks == t.k_blocks) tile<V, bits, 1, blocks, PackedSource>(t);
    else grouped_tile<V, bits, 1, blocks, PackedSource>(t);
}

template <class V>
void packed_tile(const Tile& t, int bits, int rows, int blocks) {
    choose<2, 9>(bits, [&](auto b) {
        choose<1, V::kTileBlocks + 1>(blocks, [&](auto n) { run_packed<V, b, n>(t, rows); });
        choose<V::kTileBlocks + 1, V::kRowBlocks + 1>(blocks, [&](auto n) { run_wide_row<V, b, n>(t); });
    });
}

template <class V, int bits, int blocks>
BITVOX_INLINE void run_panel(const Tile& t, int rows) {
    if (t.group_blocks == t.k_blocks)
        run_plain<V, bits, V::heights(bits, false).panel, blocks, PanelSource>(t, rows);
    else run_grouped<V, bits, V::heights(bits, true).panel, blocks, PanelSource>(t, rows);
}

template <class V>
void panel_tile(const Tile& t, int bits, int rows, int blocks) {
    choose<2, 9>(bits, [&](auto b) {
        choose<1, V::kTileBlocks + 1>(blocks, [&](auto n) { run_panel<V, V::panel_kind(b), n>(t, rows); });
    });
}

template <class V>
constexpr Kernels make_kernels(const char* name, bool (*supported)()) {
    return {name,
            supported,
            V::kRowBlocks,
            V::kTileBlocks,
            V::kStepRows,
            V::heights,
            packed_tile<V>,
            panel_tile<V>,
            V::panel_bytes,
            V::code_bias,
            magnitude,
            quantise,
            quantise_calibrated,
            sum,
            quantise_frames,
            quantise_frames_calibrated,
            transpose,
            group_sums,
            widen_halves,
            gelu,
            normalise,
            normalise_row,
            filter,
            product<V>,
            exponentials};
}

}  // namespace
}  // namespace bitvox
