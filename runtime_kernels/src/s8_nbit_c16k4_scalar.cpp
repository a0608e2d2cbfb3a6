// The reference path: the same contract in plain loops, for any CPU, and the yardstick that the others must
// equal.
#include <cmath>
#include <cstring>

#include "format.h"
#include "kernels.h"
#include "products.h"
#include "rows.h"

namespace bitvox {
namespace {

int code_at(const uint8_t* block, int bits, int k, int column) {
    const Planes planes = planes_of(bits);
    const int quad = k / 4;
    int code = 0;
    for (int p = 0; p < planes.count; ++p) {
        const int width = planes.width[p];
        const int line = block[quad % width * kLineBytes + column * 4 + k % 4];
        code = code << width | (line >> quad / width * width & ((1 << width) - 1));
        block += width * kLineBytes;
    }
    return code;
}

uint8_t& panel_at(const Tile& t, int blocks, int k, int column) {
    uint8_t* quad = t.panel + k / kBlockDepth * t.panel_step + k % kBlockDepth / 4 * blocks * kLineBytes;
    return quad[column * 4 + k % 4];
}

// Sums of one row and column over a group, from whatever `code` returns for each k.
template <class Code>
void finish(const Tile& t, int row, int column, int columns, Code code) {
    const int groups = t.k_blocks / t.group_blocks;
    const int group_depth = t.group_blocks * kBlockDepth;
    float total = 0.0f;
    int32_t sum = 0;
    for (int g = 0; g < groups; ++g) {
        const size_t cell = size_t(g) * columns + column;
        sum = 0;
        for (int k = g * group_depth; k < (g + 1) * group_depth; ++k)
            sum += code(k) * t.x[row * t.x_stride + k];
        sum += t.x_offsets[row * groups + g] * (t.zeros ? t.zeros[cell] : 1);
        if (t.corrections) sum += t.corrections[cell];
        total = std::fma(float(sum), t.scales[cell], total);
    }
    const ptrdiff_t at = row * t.y_stride + column;
    if (t.sums) t.sums[at] = sum;
    else if (groups > 1) t.y[at] = std::fma(total, t.x_scales[row], t.bias[column]);
    else t.y[at] = std::fma(float(sum), t.scales[column] * t.x_scales[row], t.bias[column]);
}

void packed_tile(const Tile& t, int bits, int rows, int blocks) {
    const int columns = blocks * kBlockColumns;
    for (int column = 0; column < columns; ++column) {
        const auto code = [&](int k) {
            const uint8_t* block = t.packed + k / kBlockDepth * t.packed_step;
            block += size_t(column / kBlockColumns) * bits * kLineBytes;
            const int code = code_at(block, bits, k % kBlockDepth, column % kBlockColumns);
            if (!t.steps) return code;
            const uint8_t* steps = t.steps + column / kBlockColumns * t.step_stride;
            const int step =
                steps[(k / kBlockDepth >> t.step_shift) * kBlockColumns + column % kBlockColumns];
            // A byte, also where a damaged file holds a step that is too large.
            return int(uint8_t((code - (1 << (bits - 1))) * step + 128));
        };
        for (int row = 0; row < rows; ++row) finish(t, row, column, columns, code);
        if (rows > 0) continue;
        for (int k = 0; k < t.k_blocks * kBlockDepth; ++k) panel_at(t, blocks, k, column) = uint8_t(code(k));
    }
}

void panel_tile(const Tile& t, int, int rows, int blocks) {
    const int columns = blocks * kBlockColumns;
    for (int row = 0; row < rows; ++row) {
        for (int column = 0; column < columns; ++column) {
            finish(t, row, column, columns, [&](int k) { return int(panel_at(t, blocks, k, column)); });
        }
    }
}

void product(const Product& p) {
    const float* floats = static_cast<const float*>(p.b);
    const uint16_t* halves = static_cast<const uint16_t*>(p.b);
    for (int row = 0; row < p.rows; ++row) {
        for (int column = 0; column < p.columns; ++column) {
            float& c = p.c[row * p.c_stride + column];
            float sum = p.resumes ? c : 0.0f;
            for (int d = 0; d < p.depth; ++d) {
                const ptrdiff_t at = d * p.b_stride + column;
                const float b = p.halves ? one_float(halves[at]) : floats[at];
                sum = std::fma(p.a[row * p.a_stride + d], b, sum);
            }
            c = sum;
        }
    }
}

bool supported() { return true; }
Heights heights(int, bool) { return {0, kMaxRows}; }
int panel_bytes(int) { return 1; }
int code_bias(int) { return 0; }

constexpr Kernels kTable = {"scalar",
                            supported,
                            1,
                            1,
                            0,
                            heights,
                            packed_tile,
                            panel_tile,
                            panel_bytes,
                            code_bias,
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
                            product,
                            exponentials};

}  // namespace

const Kernels& kernels_scalar() { return kTable; }

}  // namespace bitvox
