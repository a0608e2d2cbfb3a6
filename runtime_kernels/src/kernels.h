// What every instruction set provides: one table of functions over plain structs. No type here holds code, so
// nothing compiled for a higher instruction set can leak into a lower one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitvox {

constexpr int kMaxRows = 8;         // rows of the tallest tile
constexpr int kMaxRowBlocks = 4;    // column blocks of the widest tile of one row
constexpr int kMaxPanelBytes = 32;  // per k: 32 columns of one byte or 16 of two
constexpr int kMaxTileBlocks = 2;   // column blocks of the widest tile of more rows, and of a panel

// One tile: `rows` rows against `blocks` column blocks over all of k.
struct Tile {
    const int8_t* x;  // [rows][32 * k_blocks]
    ptrdiff_t x_stride;
    const float* x_scales;  // [rows]
    const int32_t*
        x_offsets;  // [rows][groups]: -sum of the row over the group, times zero where `zeros` is null

    const uint8_t* packed;  // lines of the first block; its neighbours along the columns follow it directly
    size_t packed_step;     // bytes from one k block to the next
    uint8_t* panel;         // unpacked codes: [k_blocks][8 quads][blocks][64]
    size_t panel_step;  // bytes from one k block to the next; 0 lets a packed tile discard what it unpacks

    // [blocks][groups][16], or null. With steps, a code counts as (code - half its range) * step + 128 of 8
    // bits.
    const uint8_t* steps;
    ptrdiff_t step_stride;  // from block to block
    int step_shift;         // log2 of the k blocks that share a step
    int first_block;        // of this tile along k, counted in the layer

    int k_blocks;
    int group_blocks;            // k blocks that share a scale; k_blocks for one scale per column
    const float* scales;         // [groups][16 * blocks]
    const int32_t* zeros;        // the same shape, or null
    const int32_t* corrections;  // the same shape, added to the sums, or null
    const float* bias;           // [16 * blocks]

    float* y;       // [rows][16 * blocks]
    int32_t* sums;  // instead of y, where not null: the integers before any scale
    ptrdiff_t y_stride;

    // Matrix tiles only.
    int32_t* partial;  // [rows][32]: sums of the k blocks before these, or room for them
    int32_t* stage;    // room for the sums of two groups, [2][16][16]
    bool resumes;      // `partial` holds such sums
};

// The tallest tiles that keep every accumulator in a register.
struct Heights {
    int packed;  // 0: a packed tile of 0 rows unpacks the panel; a single row always has its own tile
    int panel;
};

// Tiles of a unit whose registers are whole matrices. Between begin and end the calling thread runs tiles of
// one height, and nothing else may use those registers.
struct MatrixTiles {
    int tallest;                                // rows
    int (*least_rows)(int bits, bool grouped);  // with fewer, the other tiles are faster
    int (*height)(int rows, bool grouped);      // of the tiles for so many rows, at most as many
    int depth_blocks;                           // k blocks that one tile takes at best; further ones resume
    void (*begin)(int height, int group_blocks);
    void (*end)();
    // Leaves sums in `partial`, floats where groups have scales of their own. `unpack` fills the panel on the
    // way; without it the panel is there already.
    void (*multiply)(const Tile& tile, int bits, int rows, int blocks, bool unpack);
    // From `partial` to outputs; the caller lets other tiles multiply meanwhile.
    void (*finish)(const Tile& tile, int bits, int rows, int blocks);
};

struct Grid {
    const float* data;
    ptrdiff_t stride;  // elements from row to row
    int rows, columns;
};

// c = a b, or c += a b where it resumes.
struct Product {
    const float* a;  // [rows][depth]
    ptrdiff_t a_stride;
    const void* b;  // [depth][columns], floats or IEEE halves
    ptrdiff_t b_stride;
    bool halves;
    float* c;  // [rows][columns]
    ptrdiff_t c_stride;
    int rows, depth, columns;
    bool resumes;
};

struct Kernels {
    const char* name;
    bool (*supported)();
    int row_blocks;                              // widest tile of one row: 1, 2 or 4 blocks
    int tile_blocks;                             // widest tile of more rows: 1 or 2
    int step_rows;                               // tallest packed tile of codes with steps
    Heights (*heights)(int bits, bool grouped);  // scales along k need a second, float, set of accumulators

    // Unpacks in registers: one row, or up to heights.packed rows leaving a panel. With steps, the panel
    // holds codes of 8 bits.
    void (*packed_tile)(const Tile& tile, int bits, int rows, int blocks);
    // Multiplies with such a panel: 1..heights.panel rows.
    void (*panel_tile)(const Tile& tile, int bits, int rows, int blocks);
    // Bytes per code in a panel.
    int (*panel_bytes)(int bits);
    // What unpacking subtracts from every code: 0, or 128 where operands are signed and the width is 8.
    int (*code_bias)(int bits);

    // max |x|, as the bits of a float: NaN and infinity compare above every finite value.
    uint32_t (*magnitude)(const float* x, size_t count);
    // q = rint(x * factor), x finite and the product within -127..127.
    void (*quantise)(const float* x, float factor, int8_t* q, size_t count);
    // q = clip(rint(x / scale) + zero, -128, 127).
    void (*quantise_calibrated)(const float* x, float scale, int32_t zero, int8_t* q, size_t count);
    int32_t (*sum)(const int8_t* q, size_t count);
    // The same two on [channels][frames], written as [frames][channels] q_stride bytes apart.
    void (*quantise_frames)(const Grid& x, float factor, int8_t* q, ptrdiff_t q_stride);
    void (*quantise_frames_calibrated)(const Grid& x, float scale, int32_t zero, int8_t* q,
                                       ptrdiff_t q_stride);
    // out[column * out_stride + row] = in[row][column].
    void (*transpose)(const Grid& in, float* out, ptrdiff_t out_stride);
    // sums[g] = factor * the sum of codes depth * g .. depth * (g + 1) - 1; depth is a multiple of 32.
    void (*group_sums)(const int8_t* q, int depth, int groups, int32_t factor, int32_t* sums);
    // `count` runs of 16 finite IEEE halves to runs of floats `stride` apart.
    void (*widen_halves)(const uint8_t* halves, int count, float* values, ptrdiff_t stride);
    void (*gelu)(float* y, size_t count);
    // y = (x - mean) / sqrt(variance + epsilon) * scale + bias over one channel.
    void (*normalise)(const float* x, float* y, size_t count, float scale, float bias, float epsilon);
    // y = x + added, or x where that is null; then the same with a scale and a bias for every element.
    void (*normalise_row)(const float* x, const float* added, float* y, size_t count, const float* scale,
                          const float* bias, float epsilon);
    // y[i] = bias + sum_j weight[j] * phases.data[j % rows * stride + j / rows + i]: a filter over a signal that
    // is dealt out to `rows` phases of `columns` samples.
    void (*filter)(const Grid& phases, const float* weight, int taps, float bias, float* y, size_t count);
    void (*product)(const Product& p);
    // x = exp(scale * x + mask - the largest such value), mask null or as long; returns the sum. scale > 0. x has
    // room for whole steps of 64.
    float (*exponentials)(float* x, const float* mask, size_t count, float scale);

    const MatrixTiles* matrix = nullptr;
};

const Kernels& kernels_scalar();
const Kernels& kernels_avx2();
const Kernels& kernels_avxvnni();
const Kernels& kernels_avx512vnni_ymm();
const Kernels& kernels_avx512vnni();
const Kernels& kernels_amx();
const Kernels& kernels_neon();
const Kernels& kernels_neon_dotprod();
const Kernels& kernels_neon_i8mm();

}  // namespace bitvox
