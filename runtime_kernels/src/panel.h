// Rows against a few neighbouring column blocks: what linear and Conv1d share.
#pragma once

#include "bitvox/nbit.h"
#include "format.h"
#include "kernels.h"

namespace bitvox {

// Quantised rows, ready to multiply.
struct Rows {
    const int8_t* x;
    ptrdiff_t stride;
    int count;
    const float* scales;     // [count]
    const int32_t* offsets;  // [count][groups], see Tile::x_offsets
};

// What one thread needs beside its rows. All sizes follow from the weight.
struct Scratch {
    uint8_t* panel;
    float* scales;
    int32_t* zeros;
    int32_t* corrections;  // of all columns where a column has one scale, else of one panel
    bool corrected;        // they are there already, see correct_columns
    float* bias;
    float* y;          // one tile, for edges
    int32_t* partial;  // sums of matrix tiles, for all rows
    int32_t* stage;    // sums of two groups of one such tile
    int8_t* ones;      // one row of ones, and what goes with it
    int32_t* ones_offsets;
};

// Hands out aligned pieces of a workspace; over null it only measures.
class Carver {
  public:
    explicit Carver(void* base) : base_(static_cast<uint8_t*>(base)) {}
    template <class T>
    T* take(size_t count) {
        uint8_t* piece = base_ ? base_ + used_ : nullptr;
        used_ += round_up(int64_t(count * sizeof(T)), NBIT_ALIGNMENT);
        return reinterpret_cast<T*>(piece);
    }
    size_t used() const { return used_; }

  private:
    uint8_t* base_;
    size_t used_ = 0;
};

struct Layer {
    const Kernels* kernels;
    Weight weight;
    const float* bias;
    nbit_activation activation;
    int32_t x_zero;
};

// Where a panel's results go: y, or sums where y is null; (row, column) at row * stride + column -
// first_column.
struct Output {
    float* y;
    int32_t* sums;
    ptrdiff_t stride;
    int first_column;
};

// `rows` bounds what run_panel gets at once.
Scratch carve_scratch(Carver& carver, const Layer& layer, int rows);
// Bytes between quantised rows of `depth` codes: padded to blocks, and off the powers of two that share a
// cache set.
ptrdiff_t row_stride(int depth);
// From max|x| to the factor that quantises and the scale that undoes it. Factor 0 means: all codes are 0, and
// the scale is 0 for rows that count as zero, NaN for rows that hold NaN or infinity.
float dynamic_factor(uint32_t magnitude_bits, float* scale);
// The value that turns a row's sum into Tile::x_offsets.
int32_t offset_factor(const Layer& layer);
// Column blocks that one call of run_panel may take.
int panel_width(const Layer& layer, int rows, int column_block, int end_block);
// Holds the matrix registers of a unit that has them, while run_panel multiplies `rows` rows.
class MatrixSession {
  public:
    MatrixSession(const Layer& layer, int rows);
    ~MatrixSession();
    MatrixSession(const MatrixSession&) = delete;

  private:
    const MatrixTiles* tiles_;  // null: not used
};
// What a zero point of the rows changes in every column, once for all the rows that run_panel will get; for
// weights without groups, elsewhere run_panel does it each time.
void correct_columns(const Layer& layer, Scratch& scratch);
// Writes columns [16 * column_block, + 16 * blocks) of all rows; columns from `end_column` on are left alone.
void run_panel(const Layer& layer, const Rows& rows, int column_block, int blocks, int end_column,
               Scratch& scratch, const Output& out);

}  // namespace bitvox
