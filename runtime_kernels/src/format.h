// The packed form: one layout for every instruction set. README.md draws it.
//
//   header (64 bytes) | codes | scales | zeros
//
// Codes are cut into blocks of 32 k by 16 columns (a column is an output). A block of n-bit codes is n lines
// of 64 bytes. Its 512 codes form eight vectors ("quads"): quad q holds k = 4q..4q+3 of all 16 columns,
// column-major, so that one 64-byte register of bytes is one operand of a 4-way dot product. Each
// power-of-two plane of width w takes w lines; line i holds quads i, i+w, i+2w, … in its bit slots from low
// to high. Four neighbouring columns blocks interleave along k, so that a single row streams through memory
// in order.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitvox {

constexpr int kBlockDepth = 32;
constexpr int kBlockColumns = 16;
constexpr int kLineBytes = 64;
constexpr int kQuads = kBlockDepth / 4;
constexpr int kInterleave = 4;

struct Planes {
    int count;
    int width[3];
};

// 3 = 2+1, 5 = 4+1, 6 = 4+2, 7 = 4+2+1: the binary digits of the width, most significant first.
constexpr Planes planes_of(int bits) {
    Planes planes{0, {0, 0, 0}};
    for (int width = 8; width > 0; width /= 2) {
        if (bits & width) planes.width[planes.count++] = width;
    }
    return planes;
}

struct Header {
    uint32_t magic;
    uint16_t version;
    uint8_t bits;
    uint8_t scale_type;
    int32_t outputs;
    int32_t depth;
    int32_t group;
    int32_t taps;
    int32_t has_zeros;
    uint8_t reserved[36];
};
static_assert(sizeof(Header) == kLineBytes, "the codes start on a line");

// A code less half its range, times a step, is a signed byte.
constexpr int kMostStepBits = 4;
constexpr int most_steps(int bits) { return 256 >> bits; }

constexpr uint32_t kMagic = 0x5442'4e42;  // "BNBT"
constexpr uint16_t kVersion = 1;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// A packed buffer, opened: where each part starts and how far apart its pieces are.
struct Weight {
    int bits, outputs, depth, taps, scale_type, has_zeros;
    int groups;        // scales per column
    int k_blocks;      // blocks along k
    int group_blocks;  // blocks along k that share a scale
    int column_blocks;
    const uint8_t* codes;
    const uint8_t* scales;  // [column_blocks][groups][16] of float or half
    const uint8_t* steps;   // [column_blocks][step_groups][16], or null; then `groups` is 1
    int step_groups;
    int step_shift;        // log2 of the blocks along k that share a step
    const uint8_t* zeros;  // [column_blocks][groups][16], or null

    size_t block_bytes() const { return size_t(bits) * kLineBytes; }
    // Column blocks that interleave with this one: 4, fewer at the right edge.
    int lanes(int column_block) const {
        const int left = column_blocks - column_block / kInterleave * kInterleave;
        return left < kInterleave ? left : kInterleave;
    }
    // From one block to the next along k.
    size_t step(int column_block) const { return lanes(column_block) * block_bytes(); }
    size_t offset(int column_block) const {
        const int lane = column_block % kInterleave;
        return (size_t(column_block - lane) * k_blocks + lane) * block_bytes();
    }
    size_t scale_bytes() const { return scale_type == 1 ? 2 : 4; }
    // Bits of a code as the tiles multiply it.
    int code_bits() const { return steps ? 8 : bits; }
};

}  // namespace bitvox
