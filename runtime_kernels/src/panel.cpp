#include "panel.h"

#include <cstring>

namespace bitvox {
namespace {

int columns_of(int blocks) { return blocks * kBlockColumns; }

// Scales and zeros of a panel, [groups][columns], in the types the tiles work in.
void widen_scales(const Layer& layer, int column_block, float* scales, ptrdiff_t stride) {
    const Weight& w = layer.weight;
    const size_t bytes = kBlockColumns * w.scale_bytes();
    const uint8_t* from = w.scales + size_t(column_block) * w.groups * bytes;
    if (w.scale_type == NBIT_SCALE_F16) return layer.kernels->widen_halves(from, w.groups, scales, stride);
    for (int g = 0; g < w.groups; ++g) std::memcpy(scales + g * stride, from + g * bytes, bytes);
}

void widen_zeros(const Layer& layer, int column_block, int32_t* zeros, ptrdiff_t stride) {
    const Weight& w = layer.weight;
    const int bias = layer.kernels->code_bias(w.bits);
    const uint8_t* from = w.zeros + size_t(column_block) * w.groups * kBlockColumns;
    for (int g = 0; g < w.groups; ++g) {
        for (int c = 0; c < kBlockColumns; ++c) zeros[g * stride + c] = from[g * kBlockColumns + c] - bias;
    }
}

void widen_parameters(const Layer& layer, int column_block, int blocks, Scratch& s) {
    for (int b = 0; b < blocks; ++b) {
        widen_scales(layer, column_block + b, s.scales + b * kBlockColumns, columns_of(blocks));
        if (!layer.weight.zeros) continue;
        widen_zeros(layer, column_block + b, s.zeros + b * kBlockColumns, columns_of(blocks));
    }
}

void widen_bias(const Layer& layer, int column_block, int blocks, Scratch& s) {
    for (int c = 0; c < columns_of(blocks); ++c) {
        const int n = column_block * kBlockColumns + c;
        s.bias[c] = layer.bias && n < layer.weight.outputs ? layer.bias[n] : 0.0f;
    }
}

// The part of a tile that depends on the columns alone.
Tile start_tile(const Layer& layer, int column_block, const Scratch& s) {
    const Weight& w = layer.weight;
    Tile tile{};
    tile.packed = w.codes + w.offset(column_block);
    tile.packed_step = w.step(column_block);
    tile.panel = s.panel;
    tile.k_blocks = w.k_blocks;
    tile.group_blocks = w.group_blocks;
    tile.scales = s.scales;
    tile.zeros = w.zeros ? s.zeros : nullptr;
    tile.step_stride = ptrdiff_t(w.step_groups) * kBlockColumns;
    if (w.steps) tile.steps = w.steps + column_block * tile.step_stride;
    tile.step_shift = w.step_shift;
    tile.bias = s.bias;
    return tile;
}

// corrections[group][column] = -x_zero * sum_k (code - zero), by multiplying each group with a row of ones.
void correct_for_zero(const Layer& layer, const Tile& whole, int blocks, Scratch& s, int32_t* corrections) {
    const Weight& w = layer.weight;
    const int group_depth = w.group_blocks * kBlockDepth;
    const float one = 1.0f;
    for (int g = 0; g < w.groups; ++g) {
        Tile tile = whole;
        const size_t at = size_t(g) * columns_of(blocks);
        tile.x = s.ones + g * group_depth;
        tile.x_scales = &one;
        tile.x_offsets = s.ones_offsets + g;
        tile.packed += g * size_t(w.group_blocks) * tile.packed_step;
        tile.k_blocks = w.group_blocks;
        tile.zeros = whole.zeros ? whole.zeros + at : nullptr;
        tile.sums = corrections + at;
        layer.kernels->packed_tile(tile, w.bits, 1, blocks);
        for (int c = 0; c < columns_of(blocks); ++c) corrections[at + c] *= -layer.x_zero;
    }
}

// Ones as far as the row reaches; their sums are known.
void fill_ones(const Layer& layer, Scratch& s) {
    const Weight& w = layer.weight;
    std::memset(s.ones, 0, size_t(w.k_blocks) * kBlockDepth);
    std::memset(s.ones, 1, w.depth);
    const int group_depth = w.groups > 1 ? w.group_blocks * kBlockDepth : w.depth;
    for (int g = 0; g < w.groups; ++g) s.ones_offsets[g] = group_depth * offset_factor(layer);
}

// Runs one tile and puts what lies before the end column where it belongs.
class Writer {
  public:
    Writer(const Layer& layer, int column_block, int blocks, int end_column, Scratch& scratch,
           const Output& out)
        : layer_(layer),
          blocks_(blocks),
          base_(column_block * kBlockColumns - out.first_column),
          valid_(end_column - column_block * kBlockColumns),
          whole_(valid_ >= columns_of(blocks)),
          scratch_(scratch),
          out_(out) {}

    template <class Run>
    void operator()(Tile& tile, int bits, int row, int rows, Run run) {
        const ptrdiff_t at = row * out_.stride + base_;
        tile.y_stride = whole_ ? out_.stride : columns_of(blocks_);
        tile.y = whole_ && out_.y ? out_.y + at : scratch_.y;
        tile.sums = out_.y ? nullptr : whole_ ? out_.sums + at : reinterpret_cast<int32_t*>(scratch_.y);
        run(tile, bits, rows, blocks_);
        if (layer_.activation == NBIT_ACTIVATION_GELU && out_.y) {
            for (int r = 0; r < rows; ++r)
                layer_.kernels->gelu(tile.y + r * tile.y_stride, columns_of(blocks_));
        }
        if (!whole_) copy(at, rows);
    }

  private:
    void copy(ptrdiff_t at, int rows) {
        char* to = out_.y ? reinterpret_cast<char*>(out_.y) : reinterpret_cast<char*>(out_.sums);
        for (int r = 0; r < rows; ++r) {
            std::memcpy(to + (at + r * out_.stride) * 4, scratch_.y + r * columns_of(blocks_),
                        size_t(valid_) * 4);
        }
    }

    const Layer& layer_;
    int blocks_, base_, valid_;
    bool whole_;
    Scratch& scratch_;
    const Output& out_;
};

void select_rows(Tile& tile, const Rows& rows, int row, int groups) {
    tile.x = rows.x + row * rows.stride;
    tile.x_stride = rows.stride;
    tile.x_scales = rows.scales + row;
    tile.x_offsets = rows.offsets + ptrdiff_t(row) * groups;
}

Heights heights_of(const Layer& layer) {
    const Weight& w = layer.weight;
    Heights heights = layer.kernels->heights(w.code_bits(), w.groups > 1);
    if (w.steps) heights.packed = layer.kernels->step_rows;
    return heights;
}

// Height of tile `index` when `rows` are dealt evenly to as few tiles as possible.
int dealt(int rows, int tiles, int index) { return rows / tiles + (index < rows % tiles); }

// Rows of the tile that unpacks.
int first_height(const Heights& heights, int rows) {
    return heights.packed == 0 ? 0 : dealt(rows, int(ceil_div(rows, heights.packed)), 0);
}

// The matrix tiles that so many rows deserve, or null.
const MatrixTiles* matrix_for(const Layer& layer, int rows) {
    const MatrixTiles* tiles = layer.kernels->matrix;
    const bool grouped = layer.weight.groups > 1;
    return tiles && rows >= tiles->least_rows(layer.weight.bits, grouped) ? tiles : nullptr;
}

// `blocks` k blocks of the tile, from `k` on.
Tile part_of(const Tile& whole, int k, int blocks) {
    Tile part = whole;
    part.x += k * kBlockDepth;
    part.packed += k * whole.packed_step;
    part.first_block = k;
    if (whole.group_blocks == whole.k_blocks) part.group_blocks = blocks;
    part.k_blocks = blocks;
    part.resumes = k > 0;
    return part;
}

// Every part of k goes through all rows while its panel is in L1. Tiles have one height; the last overlaps
// the one before it, which writes the same numbers twice. A tile is finished while the next one multiplies.
void run_matrix(const Layer& layer, const MatrixTiles& tiles, const Rows& rows, const Tile& whole, int blocks,
                Scratch& s, Writer& write) {
    const Weight& w = layer.weight;
    const bool grouped = w.groups > 1;
    const int height = tiles.height(rows.count, grouped);
    const int parts = grouped ? 1 : int(ceil_div(w.k_blocks, tiles.depth_blocks));
    const int part_blocks = int(round_up(ceil_div(w.k_blocks, parts), 2));
    const auto first_of = [&](int row) { return row + height <= rows.count ? row : rows.count - height; };
    const auto tile_at = [&](int row) {
        Tile tile = whole;
        select_rows(tile, rows, first_of(row), w.groups);
        tile.partial = s.partial + row * columns_of(kMaxTileBlocks);
        tile.stage = s.stage;
        return tile;
    };
    const auto finish = [&](int row) {
        Tile tile = tile_at(row);
        write(tile, w.bits, first_of(row), height, tiles.finish);
    };
    for (int k = 0; k < w.k_blocks; k += part_blocks) {
        const int left = w.k_blocks - k;
        const bool last = left <= part_blocks;
        for (int row = 0; row < rows.count; row += height) {
            const Tile part = part_of(tile_at(row), k, last ? left : part_blocks);
            tiles.multiply(part, w.bits, height, blocks, row == 0);
            if (last && row > 0) finish(row - height);
        }
    }
    finish((rows.count - 1) / height * height);
}

}  // namespace

MatrixSession::MatrixSession(const Layer& layer, int rows) : tiles_(matrix_for(layer, rows)) {
    const Weight& w = layer.weight;
    if (tiles_) tiles_->begin(tiles_->height(rows, w.groups > 1), w.groups > 1 ? w.group_blocks : 2);
}

MatrixSession::~MatrixSession() {
    if (tiles_) tiles_->end();
}

Scratch carve_scratch(Carver& carver, const Layer& layer, int rows) {
    const Weight& w = layer.weight;
    const size_t depth = size_t(round_up(w.k_blocks, 2)) * kBlockDepth;
    const size_t cells = size_t(w.groups) * columns_of(kMaxRowBlocks);
    Scratch s;
    s.panel = carver.take<uint8_t>(depth * kMaxPanelBytes);
    s.scales = carver.take<float>(cells);
    s.zeros = carver.take<int32_t>(cells);
    s.corrections = carver.take<int32_t>(w.groups > 1 ? cells : size_t(columns_of(w.column_blocks)));
    s.corrected = false;
    s.bias = carver.take<float>(columns_of(kMaxRowBlocks));
    const MatrixTiles* matrix = matrix_for(layer, rows);
    const int tallest = matrix ? matrix->tallest : kMaxRows;
    s.y = carver.take<float>(size_t(tallest) * columns_of(kMaxTileBlocks));
    s.partial = carver.take<int32_t>(matrix ? round_up(rows, tallest) * columns_of(kMaxTileBlocks) : 0);
    s.stage = carver.take<int32_t>(matrix ? 2 * kBlockColumns * kBlockColumns : 0);
    s.ones = carver.take<int8_t>(depth);
    s.ones_offsets = carver.take<int32_t>(w.groups);
    return s;
}

ptrdiff_t row_stride(int depth) {
    const ptrdiff_t stride = round_up(depth, kLineBytes);
    return stride % 1024 == 0 ? stride + kLineBytes : stride;
}

int32_t offset_factor(const Layer& layer) {
    const Weight& w = layer.weight;
    return w.zeros ? -1 : layer.kernels->code_bias(w.code_bits()) - (1 << (w.code_bits() - 1));
}

int panel_width(const Layer& layer, int rows, int column_block, int end_block) {
    const int most = rows == 1 ? layer.kernels->row_blocks : layer.kernels->tile_blocks;
    const int lane = column_block % kInterleave;
    int left = layer.weight.lanes(column_block) - lane;  // neighbours in memory
    left = end_block - column_block < left ? end_block - column_block : left;
    for (int blocks = most; blocks > 1; blocks /= 2) {
        if (blocks <= left) return blocks;
    }
    return 1;
}

void correct_columns(const Layer& layer, Scratch& s) {
    const Weight& w = layer.weight;
    if (!layer.x_zero || w.groups > 1) return;
    fill_ones(layer, s);
    for (int block = 0; block < w.column_blocks;) {
        const int blocks = panel_width(layer, 1, block, w.column_blocks);
        widen_parameters(layer, block, blocks, s);
        correct_for_zero(layer, start_tile(layer, block, s), blocks, s, s.corrections + columns_of(block));
        block += blocks;
    }
    s.corrected = true;
}

void run_panel(const Layer& layer, const Rows& rows, int column_block, int blocks, int end_column, Scratch& s,
               const Output& out) {
    const Weight& w = layer.weight;
    const Kernels& kernels = *layer.kernels;
    const Heights heights = heights_of(layer);
    widen_parameters(layer, column_block, blocks, s);
    widen_bias(layer, column_block, blocks, s);
    Tile tile = start_tile(layer, column_block, s);
    if (layer.x_zero) {
        int32_t* corrections = s.corrections + (w.groups > 1 ? 0 : columns_of(column_block));
        if (!s.corrected) {
            fill_ones(layer, s);
            correct_for_zero(layer, tile, blocks, s, corrections);
        }
        tile.corrections = corrections;
    }
    Writer write(layer, column_block, blocks, end_column, s, out);
    if (rows.count == 1) {
        select_rows(tile, rows, 0, w.groups);
        return write(tile, w.bits, 0, 1, kernels.packed_tile);
    }
    const size_t panel_step = size_t(kBlockDepth) * columns_of(blocks) * kernels.panel_bytes(w.code_bits());
    tile.panel_step = panel_step;
    if (const MatrixTiles* tiles = matrix_for(layer, rows.count))
        return run_matrix(layer, *tiles, rows, tile, blocks, s, write);
    const int unpacking = first_height(heights, rows.count);
    if (unpacking == rows.count) tile.panel_step = 0;  // nobody reads it
    select_rows(tile, rows, 0, w.groups);
    if (unpacking == 0) kernels.packed_tile(tile, w.bits, 0, blocks);
    else write(tile, w.bits, 0, unpacking, kernels.packed_tile);
    const int rest = rows.count - unpacking;
    const int tiles = int(ceil_div(rest, heights.panel));
    for (int i = 0, row = unpacking; i < tiles; ++i) {
        const int height = dealt(rest, tiles, i);
        select_rows(tile, rows, row, w.groups);
        write(tile, w.code_bits(), row, height, kernels.panel_tile);
        row += height;
    }
}

}  // namespace bitvox
