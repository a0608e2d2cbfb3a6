// Signed 8-bit activations, n-bit codes in 16-column 4-k order, NEON with int8 matrix multiplication (smmla).
//
// smmla multiplies 2 rows of 8 k by 2 columns of 8 k. Two neighbouring quads of four columns, zipped as
// 32-bit words, are its column operands; a pair of rows, 8 bytes from each, is its row operand. Single rows
// and unpacking are as with sdot.
#include <sys/auxv.h>

#include "neon_dotprod.h"
#include "table.h"

namespace bitvox {
namespace {

constexpr unsigned long kAsimdDp = 1ul << 20;  // in AT_HWCAP
constexpr unsigned long kI8mm = 1ul << 13;     // in AT_HWCAP2
constexpr int kPairs = 4;                      // of rows: 4 by 4 pairs of columns fill 16 accumulators
constexpr int kQuadPairs = kQuads / 2;

struct NeonI8mm : NeonDotprod {
    // The templates provide the grouped panel tile; matrix_tile replaces the plain one.
    static constexpr Heights heights(int, bool grouped) { return {0, grouped ? 2 : 1}; }
};

BITVOX_INLINE int8x16_t row_pair(const int8_t* first, const int8_t* second) {
    return vcombine_s8(vld1_s8(first), vld1_s8(second));
}

// Sums [2 rows][2 columns] for `pairs` pairs of rows by four pairs of columns.
template <int pairs>
struct Blocks {
    int32x4_t sum[pairs][4];

    BITVOX_INLINE void start() {
        unroll<0, pairs>([&](auto r) { unroll<0, 4>([&](auto c) { sum[r][c] = vdupq_n_s32(0); }); });
    }

    // One k block of 8 columns: vectors `at` and `at + 1` of each quad of the panel.
    template <int bits>
    BITVOX_INLINE void add(const uint8_t* panel, ptrdiff_t quad_bytes, const int8_t* const (&x)[2 * pairs]) {
        unroll<0, kQuadPairs>([&](auto q) {
            int8x16_t rows[pairs];
            unroll<0, pairs>([&](auto r) { rows[r] = row_pair(x[2 * r] + 8 * q, x[2 * r + 1] + 8 * q); });
            keep_order(panel);
            const uint8_t* even = panel + 2 * q * quad_bytes;
            unroll<0, 2>([&](auto half) {
                const auto first = vreinterpretq_s32_s8(Neon::operand<bits>(vld1q_u8(even + half * 16)));
                const auto second =
                    vreinterpretq_s32_s8(Neon::operand<bits>(vld1q_u8(even + quad_bytes + half * 16)));
                const int8x16_t low = vreinterpretq_s8_s32(vzip1q_s32(first, second));
                const int8x16_t high = vreinterpretq_s8_s32(vzip2q_s32(first, second));
                unroll<0, pairs>([&](auto r) {
                    sum[r][2 * half] = vmmlaq_s32(sum[r][2 * half], rows[r], low);
                    sum[r][2 * half + 1] = vmmlaq_s32(sum[r][2 * half + 1], rows[r], high);
                });
            });
        });
    }

    // Columns 4 * half .. + 3 of one row.
    BITVOX_INLINE int32x4_t row(int pair, int second, int half) const {
        const auto left = vreinterpretq_s64_s32(sum[pair][2 * half]);
        const auto right = vreinterpretq_s64_s32(sum[pair][2 * half + 1]);
        return vreinterpretq_s32_s64(second ? vzip2q_s64(left, right) : vzip1q_s64(left, right));
    }
};

// An odd last row is multiplied twice and written once.
template <int bits, int pairs>
BITVOX_NOINLINE void matrix_tile(const Tile& t, int rows, int blocks) {
    const ptrdiff_t quad_bytes = ptrdiff_t(blocks) * kLineBytes;
    for (int column = 0; column < blocks * kBlockColumns; column += 8) {
        const int8_t* x[2 * pairs];
        unroll<0, 2 * pairs>([&](auto r) { x[r] = t.x + (r < rows ? r : rows - 1) * t.x_stride; });
        Blocks<pairs> acc;
        acc.start();
        for (int k = 0; k < t.k_blocks; ++k) {
            acc.template add<bits>(t.panel + k * t.panel_step + column * 4, quad_bytes, x);
            unroll<0, 2 * pairs>([&](auto r) { x[r] += kBlockDepth; });
        }
        each<2 * pairs, 2>([&](auto r, auto half) {
            if (r < rows) write_sum<NeonI8mm>(t, acc.row(r / 2, r % 2, half), r, column + 4 * half);
        });
    }
}

void matrix_panel_tile(const Tile& t, int bits, int rows, int blocks) {
    if (t.group_blocks != t.k_blocks) return panel_tile<NeonI8mm>(t, bits, rows, blocks);
    choose<1, kPairs + 1>((rows + 1) / 2, [&](auto pairs) {
        if (bits == 8) matrix_tile<8, pairs>(t, rows, blocks);
        else matrix_tile<7, pairs>(t, rows, blocks);
    });
}

constexpr Heights matrix_heights(int bits, bool grouped) {
    return grouped ? NeonI8mm::heights(bits, grouped) : Heights{0, 2 * kPairs};
}

constexpr Kernels with_matrix_tile(Kernels kernels) {
    kernels.heights = matrix_heights;
    kernels.panel_tile = matrix_panel_tile;
    return kernels;
}

bool supported() { return (getauxval(AT_HWCAP) & kAsimdDp) && (getauxval(AT_HWCAP2) & kI8mm); }

constexpr Kernels kTable = with_matrix_tile(make_kernels<NeonI8mm>("neon_i8mm", supported));

}  // namespace

const Kernels& kernels_neon_i8mm() { return kTable; }

}  // namespace bitvox
