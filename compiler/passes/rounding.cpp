// What rounding does weight by weight, within a block of inputs; products with whole matrices are torch's.
//
// Arrays of weights are [groups, inputs, rows]: rows lie side by side, and a tile of them goes through a block
// together. Every row's arithmetic is its own and in one order, so that codes depend neither on the other rows
// nor on the processor.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

namespace nb = nanobind;

namespace {

template <class T, int rank>
using Array = nb::ndarray<T, nb::ndim<rank>, nb::c_contig, nb::device::cpu>;
using Matrices = Array<const float, 3>;   // [groups, inputs, inputs]
using PerRow = Array<const float, 2>;     // [groups, rows]
using Weights = Array<const float, 3>;    // [groups, inputs, rows]
using Results = Array<float, 3>;          // the same, or [groups, block, rows]

constexpr size_t kTile = 32;
using Lanes = float[kTile];

// Nearest code in [-top, top - 1], ties to even: adding and taking off 1.5 * 2^23 rounds to a whole number.
inline float nearest_code(float value, float top) {
    constexpr float kShift = 12582912.0f;
    return (std::min(top - 1.0f, std::max(-top, value)) + kShift) - kShift;
}

struct Tile {
    size_t first, count;

    void load(Lanes& lanes, const float* row, float filler = 0.0f) const {
        std::memcpy(lanes, row + first, count * sizeof(float));
        std::fill(lanes + count, lanes + kTile, filler);
    }
    void store(const Lanes& lanes, float* row) const { std::memcpy(row + first, lanes, count * sizeof(float)); }
};

inline void add(Lanes& sum, float factor, const Lanes& lanes) {
    for (size_t lane = 0; lane < kTile; lane++) sum[lane] += factor * lanes[lane];
}

template <class Work>
void each_tile(size_t rows, Work work) {
    for (size_t first = 0; first < rows; first += kTile) work(Tile{first, std::min(kTile, rows - first)});
}

// Rounds the inputs [first, last) of rows, the last first. H = U^T U, and what rounding has lost adds up to
// (sum of U[i][j] lost[j] over j >= i)^2 for every i: each input takes the code that makes its own term least,
// with what those after it have lost. `owed` has that sum over the inputs after the block.
void eliminate(Matrices factor, size_t first, size_t last, Weights weights, Weights owed, PerRow steps, PerRow tops,
               Results codes, Results lost) {
    const size_t inputs = weights.shape(1), rows = weights.shape(2), block = last - first;
    std::vector<Lanes> losses(block);
    for (size_t group = 0; group < weights.shape(0); group++) {
        const float* matrix = factor.data() + group * inputs * inputs;
        const auto row_of = [&](const auto& array, size_t input) {
            return array.data() + (group * inputs + first + input) * rows;
        };
        each_tile(rows, [&](Tile tile) {
            Lanes step, top, sum, weight, code;
            tile.load(step, steps.data() + group * rows, 1.0f);
            tile.load(top, tops.data() + group * rows, 1.0f);
            for (size_t i = block; i-- > 0;) {
                const float* terms = matrix + (first + i) * inputs + first;
                tile.load(sum, row_of(owed, i));
                tile.load(weight, row_of(weights, i));
                for (size_t j = i + 1; j < block; j++) add(sum, terms[j], losses[j]);
                for (size_t lane = 0; lane < kTile; lane++) {
                    const float wanted = weight[lane] - sum[lane] / terms[i];
                    code[lane] = nearest_code(wanted / step[lane], top[lane]);
                    losses[i][lane] = code[lane] * step[lane] - weight[lane];
                }
                tile.store(code, row_of(codes, i));
                tile.store(losses[i], row_of(lost, i));
            }
        });
    }
}

// Coordinate descent over the inputs [first, last): each in turn takes the code that is best given all others.
// `slope` is lost H before the block; `moved` becomes what the block's weights changed by.
void descend(Matrices hessian, size_t first, size_t last, Weights slope, PerRow steps, PerRow tops, Results codes,
             Results moved) {
    const size_t inputs = slope.shape(1), rows = slope.shape(2), block = last - first;
    std::vector<Lanes> changes(block);
    for (size_t group = 0; group < slope.shape(0); group++) {
        const float* matrix = hessian.data() + group * inputs * inputs;
        each_tile(rows, [&](Tile tile) {
            Lanes step, top, sum, code;
            tile.load(step, steps.data() + group * rows, 1.0f);
            tile.load(top, tops.data() + group * rows, 1.0f);
            for (size_t i = 0; i < block; i++) {
                const size_t at = (group * inputs + first + i) * rows;
                const float* terms = matrix + (first + i) * inputs + first;
                const float curvature = std::max(terms[i], 1e-30f);
                tile.load(sum, slope.data() + at);
                tile.load(code, codes.data() + at);
                for (size_t j = 0; j < i; j++) add(sum, terms[j], changes[j]);
                for (size_t lane = 0; lane < kTile; lane++) {
                    const float wanted = code[lane] - sum[lane] / curvature / step[lane];
                    const float best = nearest_code(wanted, top[lane]);
                    changes[i][lane] = (best - code[lane]) * step[lane];
                    code[lane] = best;
                }
                tile.store(code, codes.data() + at);
                tile.store(changes[i], moved.data() + (group * block + i) * rows);
            }
        });
    }
}

}  // namespace

NB_MODULE(_rounding, m) {
    const auto release = nb::call_guard<nb::gil_scoped_release>();
    m.def("eliminate", &eliminate, release, nb::arg("factor").noconvert(), nb::arg("first"), nb::arg("last"),
          nb::arg("weights").noconvert(), nb::arg("owed").noconvert(), nb::arg("steps").noconvert(),
          nb::arg("tops").noconvert(), nb::arg("codes").noconvert(), nb::arg("lost").noconvert());
    m.def("descend", &descend, release, nb::arg("hessian").noconvert(), nb::arg("first"), nb::arg("last"),
          nb::arg("slope").noconvert(), nb::arg("steps").noconvert(), nb::arg("tops").noconvert(),
          nb::arg("codes").noconvert(), nb::arg("moved").noconvert());
}
