// Signed 8-bit activations, n-bit codes in 16-column 4-k order, AMX-INT8; few rows take AVX512-VNNI.
//
// A panel is a matrix operand as it stands: 16 quads of 16 columns are 16 rows of 64 bytes. Rows of
// activations are the other operand where they lie. A tile's sums end in memory, and vectors turn them into
// outputs while the next tile multiplies.
#include "amx_cpu.h"
#include "tiles.h"
#include "x86_512.h"

namespace bitvox {
namespace {

constexpr int kRows = 16;  // of one register
constexpr int kStep = 2;   // k blocks that fill a register
constexpr int kStepBytes = 2 * kBlockDepth;
constexpr ptrdiff_t kPartialBytes = 2 * kLineBytes;  // from row to row of the sums

// Registers 0..3 hold sums [2 row tiles][2 blocks], 4 and 5 rows, 6 and 7 columns.
struct alignas(64) Config {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

void begin(int height, int group_blocks) {
    const int depth = group_blocks % kStep ? kBlockDepth : kStepBytes;
    const int upper = height < kRows ? height : kRows;
    const int lower = height > kRows ? height - kRows : upper;
    Config config;
    const auto set = [&](int tile, int rows, int bytes) {
        config.rows[tile] = uint8_t(rows);
        config.row_bytes[tile] = uint16_t(bytes);
    };
    for (int block = 0; block < 2; ++block) {
        set(block, upper, kLineBytes);
        set(2 + block, lower, kLineBytes);
        set(6 + block, depth / 4, kLineBytes);
    }
    set(4, upper, depth);
    set(5, lower, depth);
    asm volatile("" : : "r"(&config) : "memory");  // the intrinsic names only its first bytes
    _tile_loadconfig(&config);
}

void end() { _tile_release(); }

// What vectors stored must be in memory before registers load it; the intrinsics do not say that they read.
BITVOX_INLINE void finish_stores() { asm volatile("" : : : "memory"); }

template <int row_tiles, int blocks>
struct Sums {
    static BITVOX_INLINE void start() {
        _tile_zero(0);
        if constexpr (blocks > 1) _tile_zero(1);
        if constexpr (row_tiles > 1) _tile_zero(2);
        if constexpr (row_tiles > 1 && blocks > 1) _tile_zero(3);
    }
    static BITVOX_INLINE void resume(const int32_t* from) {
        _tile_loadd(0, from, kPartialBytes);
        if constexpr (blocks > 1) _tile_loadd(1, from + kBlockColumns, kPartialBytes);
        if constexpr (row_tiles > 1) _tile_loadd(2, below(from), kPartialBytes);
        if constexpr (row_tiles > 1 && blocks > 1) _tile_loadd(3, below(from) + kBlockColumns, kPartialBytes);
    }
    static BITVOX_INLINE void store(int32_t* to) {
        _tile_stored(0, to, kPartialBytes);
        if constexpr (blocks > 1) _tile_stored(1, to + kBlockColumns, kPartialBytes);
        if constexpr (row_tiles > 1) _tile_stored(2, below(to), kPartialBytes);
        if constexpr (row_tiles > 1 && blocks > 1) _tile_stored(3, below(to) + kBlockColumns, kPartialBytes);
    }
    static BITVOX_INLINE void add(const int8_t* x, ptrdiff_t stride, const uint8_t* panel) {
        constexpr ptrdiff_t quad = blocks * kLineBytes;
        _tile_loadd(6, panel, quad);
        _tile_loadd(4, x, stride);
        _tile_dpbsud(0, 4, 6);
        if constexpr (blocks > 1) {
            _tile_loadd(7, panel + kLineBytes, quad);
            _tile_dpbsud(1, 4, 7);
        }
        if constexpr (row_tiles > 1) {
            _tile_loadd(5, x + kRows * stride, stride);
            _tile_dpbsud(2, 5, 6);
            if constexpr (blocks > 1) _tile_dpbsud(3, 5, 7);
        }
    }

  private:
    template <class T>
    static BITVOX_INLINE T* below(T* sums) {
        return sums + kRows * (kPartialBytes / 4);
    }
};

// Two k blocks into the panel; what lies beyond the last one is zero.
template <int bits, int blocks, bool steps>
BITVOX_INLINE void unpack_step(const Tile& t, int k) {
    using From = Lines<Zmm, bits, 0, blocks, steps>;
    typename From::Sums none;
    From::block(t, k, none);
    if (k + 1 < t.k_blocks) return From::block(t, k + 1, none);
    uint8_t* rest = t.panel + (k + 1) * t.panel_step;
    unroll<0, kQuads * blocks>([&](auto i) { Zmm::store(rest + i * kLineBytes, _mm512_setzero_si512()); });
}

// Unpacking runs one step ahead, on other ports than the matrices.
template <int bits, int row_tiles, int blocks, bool steps>
BITVOX_NOINLINE void multiply_packed(const Tile& t) {
    using Sums = Sums<row_tiles, blocks>;
    unpack_step<bits, blocks, steps>(t, 0);
    for (int k = 0; k < t.k_blocks; k += kStep) {
        if (k + kStep < t.k_blocks) unpack_step<bits, blocks, steps>(t, k + kStep);
        finish_stores();
        Sums::add(t.x + k * kBlockDepth, t.x_stride, t.panel + k * t.panel_step);
    }
}

template <int row_tiles, int blocks>
BITVOX_NOINLINE void multiply_panel(const Tile& t) {
    finish_stores();
    for (int k = 0; k < t.k_blocks; k += kStep) {
        Sums<row_tiles, blocks>::add(t.x + k * kBlockDepth, t.x_stride, t.panel + k * t.panel_step);
    }
}

template <int row_tiles, int blocks>
void multiply_rows(const Tile& t, int bits, bool unpack) {
    using Sums = Sums<row_tiles, blocks>;
    if (t.resumes) Sums::resume(t.partial);
    else Sums::start();
    if (!unpack) multiply_panel<row_tiles, blocks>(t);
    else if (t.steps)
        choose<2, kMostStepBits + 1>(bits, [&](auto b) { multiply_packed<b, row_tiles, blocks, true>(t); });
    else choose<2, 9>(bits, [&](auto b) { multiply_packed<b, row_tiles, blocks, false>(t); });
    Sums::store(t.partial);
}

// A whole panel for groups with scales of their own. Where a zero is half the range, codes less that are
// signed bytes, and sums need no correction.
template <int bits, int blocks, bool centred>
BITVOX_NOINLINE void unpack_panel(const Tile& t) {
    for (int k = 0; k < t.k_blocks; ++k) {
        const uint8_t* lines = t.packed + k * t.packed_step;
        uint8_t* panel = t.panel + k * t.panel_step;
        unroll<0, kQuads>([&](auto q) {
            unroll<0, blocks>([&](auto c) {
                __m512i codes = unpack<Zmm, bits, q>(lines + c * bits * kLineBytes);
                if constexpr (centred)
                    codes = _mm512_sub_epi8(codes, _mm512_set1_epi8(char(1 << (bits - 1))));
                Zmm::store(panel + (q * blocks + c) * kLineBytes, codes);
            });
        });
    }
}

// One group's sums of one block of columns, to memory.
template <bool centred>
BITVOX_INLINE void multiply_group(const Tile& t, int group, int block, ptrdiff_t quad, int32_t* sums) {
    const int begin = group * t.group_blocks, end = begin + t.group_blocks;
    _tile_zero(0);
    for (int k = begin; k < end; k += kStep) {
        _tile_loadd(6, t.panel + k * t.panel_step + block * kLineBytes, quad);
        _tile_loadd(4, t.x + k * kBlockDepth, t.x_stride);
        if constexpr (centred) _tile_dpbssd(0, 4, 6);
        else _tile_dpbsud(0, 4, 6);
    }
    _tile_stored(0, sums, kLineBytes);
}

// Vectors scale one group while the next one multiplies.
template <int rows, bool centred>
BITVOX_NOINLINE void multiply_groups(const Tile& t, int blocks) {
    const int groups = t.k_blocks / t.group_blocks;
    for (int block = 0; block < blocks; ++block) {
        __m512 totals[rows];
        unroll<0, rows>([&](auto r) { totals[r] = Zmm::broadcast(0.0f); });
        multiply_group<centred>(t, 0, block, blocks * kLineBytes, t.stage);
        for (int group = 0; group < groups; ++group) {
            const int32_t* sums = t.stage + group % 2 * (kRows * kBlockColumns);
            int32_t* next = t.stage + (group + 1) % 2 * (kRows * kBlockColumns);
            if (group + 1 < groups) multiply_group<centred>(t, group + 1, block, blocks * kLineBytes, next);
            const size_t at = (size_t(group) * blocks + block) * kBlockColumns;
            const __m512 scale = Zmm::load(t.scales + at);
            unroll<0, rows>([&](auto r) {
                __m512i sum = Zmm::load(static_cast<const void*>(sums + r * kBlockColumns));
                if constexpr (!centred) sum = corrected<Zmm>(t, sum, t.x_offsets[r * groups + group], at);
                totals[r] = pinned(Zmm::fma(Zmm::to_float(sum), scale, totals[r]));
            });
        }
        float* to = reinterpret_cast<float*>(t.partial) + block * kBlockColumns;
        unroll<0, rows>([&](auto r) { Zmm::store(to + r * (kPartialBytes / 4), totals[r]); });
    }
}

constexpr int kLeastGrouped = 9;  // rows; so many that any number above divides into tiles of 9..16

void multiply_grouped(const Tile& t, int bits, int rows, int blocks, bool unpack) {
    choose<0, 2>(!t.zeros && !t.corrections, [&](auto centred) {
        if (unpack) {
            choose<2, 9>(bits, [&](auto b) {
                if (blocks > 1) unpack_panel<b, 2, centred>(t);
                else unpack_panel<b, 1, centred>(t);
            });
            finish_stores();
        }
        choose<kLeastGrouped, kRows + 1>(rows, [&](auto r) { multiply_groups<r, centred>(t, blocks); });
    });
}

bool has_groups(const Tile& t) { return t.group_blocks != t.k_blocks; }

void multiply(const Tile& t, int bits, int rows, int blocks, bool unpack) {
    if (has_groups(t)) return multiply_grouped(t, bits, rows, blocks, unpack);
    choose<1, 3>(blocks, [&](auto b) {
        if (rows > kRows) multiply_rows<2, b>(t, bits, unpack);
        else multiply_rows<1, b>(t, bits, unpack);
    });
}

BITVOX_INLINE __m512i sums_at(const Tile& t, int row, int block) {
    return Zmm::load(static_cast<const void*>(t.partial + row * (kPartialBytes / 4) + block * kBlockColumns));
}

// The same roundings as write_sum, with what all rows share kept in registers.
template <int blocks>
void finish_symmetric(const Tile& t, int rows) {
    __m512 scales[blocks], bias[blocks];
    unroll<0, blocks>([&](auto c) {
        scales[c] = Zmm::load(t.scales + c * kBlockColumns);
        bias[c] = Zmm::load(t.bias + c * kBlockColumns);
    });
    float* y = t.y;
    for (int r = 0; r < rows; ++r) {
        const __m512i offset = Zmm::broadcast(t.x_offsets[r]);
        const __m512 scale = Zmm::broadcast(t.x_scales[r]);
        unroll<0, blocks>([&](auto c) {
            const __m512 sum = Zmm::to_float(Zmm::add(sums_at(t, r, c), offset));
            Zmm::store(y + c * kBlockColumns, Zmm::fma(sum, Zmm::multiply(scales[c], scale), bias[c]));
            // The next panel's place: rows of y lie too far apart for the hardware to see a stream.
            __builtin_prefetch(y + (blocks + c) * kBlockColumns, 1);
        });
        y += t.y_stride;
    }
}

template <int blocks>
void finish_any(const Tile& t, int rows) {
    for (int r = 0; r < rows; ++r) {
        unroll<0, blocks>([&](auto c) { write_sum<Zmm>(t, sums_at(t, r, c), r, c * kBlockColumns); });
    }
}

void finish_grouped(const Tile& t, int rows, int blocks) {
    for (int r = 0; r < rows; ++r) {
        for (int block = 0; block < blocks; ++block) {
            write_total<Zmm>(t, _mm512_castsi512_ps(sums_at(t, r, block)), r, block * kBlockColumns);
            __builtin_prefetch(t.y + r * t.y_stride + (blocks + block) * kBlockColumns, 1);
        }
    }
}

void finish(const Tile& t, int, int rows, int blocks) {
    if (has_groups(t)) return finish_grouped(t, rows, blocks);
    const bool symmetric = !t.zeros && !t.corrections && !t.sums;
    choose<1, 3>(blocks, [&](auto b) {
        if (symmetric) finish_symmetric<b>(t, rows);
        else finish_any<b>(t, rows);
    });
}

int least_rows(int bits, bool grouped) { return grouped ? kLeastGrouped : bits <= 4 ? 5 : 9; }

// As few tiles as possible, all of one height: the last one overlaps the one before it.
int height(int rows, bool grouped) {
    const int tallest = grouped ? kRows : 2 * kRows;
    const int tiles = (rows + tallest - 1) / tallest;
    return (rows + tiles - 1) / tiles;
}

}  // namespace

const MatrixTiles kAmxTiles = {2 * kRows, least_rows, height, 32, begin, end, multiply, finish};

}  // namespace bitvox
