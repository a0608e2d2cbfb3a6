// Signed 8-bit activations, n-bit codes in 16-column 4-k order, AMX: a tile register takes 16 quads of a panel
// as they lie, which is 64 k by 16 columns.
//
// Two tiles of rows by two of columns share their operands, so that each is loaded once for two products. What
// does not fill tiles (an odd block of k, scales along k, a single row) goes to AVX512-VNNI, which every such
// CPU has; and so does everything around the products.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "table.h"
#include "x86_512.h"

namespace bitvox {
namespace {

constexpr int kTileRows = 16;
constexpr int kShortTile = 8;  // rows of the tallest tile in vectors
constexpr int kStepBlocks = 2;  // k blocks that one tile register spans

struct Vnni : Zmm {
    static constexpr int kRowBlocks = 4;
    static constexpr int kTileBlocks = 2;
    static constexpr Heights heights(int, bool grouped) { return grouped ? Heights{4, 6} : Heights{8, 8}; }
    static constexpr int panel_kind(int) { return 8; }
    static int code_bias(int) { return 0; }
};

Heights heights(int bits, bool grouped) {
    return grouped ? Vnni::heights(bits, true) : Heights{0, 2 * kTileRows};
}

// Registers: 0..3 sums of (upper, lower rows) x (first, second block), 4 and 5 rows, 6 and 7 blocks.
struct alignas(64) TileShapes {
    uint8_t palette = 1;
    uint8_t start = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    explicit TileShapes(int upper, int lower) {
        const int heights[8] = {upper, upper, lower, lower, upper, lower, kTileRows, kTileRows};
        for (int i = 0; i < 8; ++i) {
            rows[i] = uint8_t(heights[i]);
            row_bytes[i] = heights[i] ? kLineBytes : 0;
        }
    }
};

// sums[row][column] of all k, 32 columns apart.
template <bool lower, int blocks>
BITVOX_NOINLINE void multiply(const Tile& t, int32_t* sums) {
    constexpr int stride = 2 * kBlockColumns * 4;
    const int8_t* x = t.x;
    const int8_t* below = t.x + kTileRows * t.x_stride;
    const uint8_t* panel = t.panel;
    _tile_zero(0);
    if constexpr (blocks == 2) _tile_zero(1);
    if constexpr (lower) _tile_zero(2);
    if constexpr (lower && blocks == 2) _tile_zero(3);
    for (int k = 0; k < t.k_blocks; k += kStepBlocks) {
        _tile_loadd(4, x, t.x_stride);
        _tile_loadd(6, panel, blocks * kLineBytes);
        _tile_dpbsud(0, 4, 6);
        if constexpr (blocks == 2) {
            _tile_loadd(7, panel + kLineBytes, blocks * kLineBytes);
            _tile_dpbsud(1, 4, 7);
        }
        if constexpr (lower) {
            _tile_loadd(5, below, t.x_stride);
            _tile_dpbsud(2, 5, 6);
            if constexpr (blocks == 2) _tile_dpbsud(3, 5, 7);
        }
        x += kStepBlocks * kBlockDepth;
        below += kStepBlocks * kBlockDepth;
        panel += kStepBlocks * t.panel_step;
    }
    _tile_stored(0, sums, stride);
    if constexpr (blocks == 2) _tile_stored(1, sums + kBlockColumns, stride);
    if constexpr (lower) _tile_stored(2, sums + kTileRows * 2 * kBlockColumns, stride);
    if constexpr (lower && blocks == 2) _tile_stored(3, sums + (kTileRows * 2 + 1) * kBlockColumns, stride);
}

template <int blocks>
void multiply_rows(const Tile& t, int rows) {
    alignas(64) int32_t sums[2 * kTileRows * 2 * kBlockColumns];
    const int upper = rows < kTileRows ? rows : kTileRows;
    const TileShapes shapes(upper, rows - upper);
    _tile_loadconfig(&shapes);
    if (rows > kTileRows) multiply<true, blocks>(t, sums);
    else multiply<false, blocks>(t, sums);
    _tile_release();
    for (int row = 0; row < rows; ++row) {
        unroll<0, blocks>([&](auto block) {
            const int column = block * kBlockColumns;
            write_sum<Vnni>(t, Vnni::load(sums + row * 2 * kBlockColumns + column), row, column);
        });
    }
}

// The same rows by the other unit's tiles.
void multiply_vectors(const Tile& t, int bits, int rows, int blocks) {
    for (int row = 0; row < rows; row += kShortTile) {
        Tile part = t;
        part.x += row * t.x_stride;
        part.x_scales += row;
        part.x_offsets += row;
        if (part.y) part.y += row * t.y_stride;
        if (part.sums) part.sums += row * t.y_stride;
        panel_tile<Vnni>(part, bits, rows - row < kShortTile ? rows - row : kShortTile, blocks);
    }
}

void tile_rows(const Tile& t, int bits, int rows, int blocks) {
    if (t.group_blocks != t.k_blocks) return panel_tile<Vnni>(t, bits, rows, blocks);
    if (t.k_blocks % kStepBlocks) return multiply_vectors(t, bits, rows, blocks);
    if (blocks == 2) multiply_rows<2>(t, rows);
    else multiply_rows<1>(t, rows);
}

// Linux hands out the registers to processes that ask.
bool permitted() {
    constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

bool has_tiles() {
    constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    return (d & kTile) && (d & kInt8) && permitted();
}

bool supported() {
    static int known = 0;  // 1: no, 2: yes; every thread finds the same
    int answer = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (answer == 0) {
        const bool vectors = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
        answer = vectors && has_tiles() ? 2 : 1;
        __atomic_store_n(&known, answer, __ATOMIC_RELAXED);
    }
    return answer == 2;
}

constexpr Kernels make_table() {
    Kernels table = make_kernels<Vnni>("amx", supported);
    table.heights = heights;
    table.panel_tile = tile_rows;
    return table;
}

constexpr Kernels kTable = make_table();

}  // namespace

const Kernels& kernels_amx() { return kTable; }

}  // namespace bitvox
