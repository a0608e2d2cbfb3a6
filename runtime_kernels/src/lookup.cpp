// Single rows of a packed weight as floats: the embeddings of tokens, from the weight that also writes logits.
#include <cstring>

#include "pack.h"

namespace bitvox {
namespace {

unsigned load_code(const uint8_t* block, const Planes& planes, int k, int column) {
    const int quad = k / 4;
    unsigned code = 0;
    for (int p = 0; p < planes.count; ++p) {
        const int width = planes.width[p];
        const uint8_t byte = block[quad % width * kLineBytes + column * 4 + k % 4];
        code = code << width | (unsigned(byte) >> (quad / width * width) & ((1u << width) - 1));
        block += width * kLineBytes;
    }
    return code;
}

float float_from_half(uint16_t half) {
    const uint32_t fields = uint32_t(half & 0x7fff) << 13 | uint32_t(half & 0x8000) << 16;
    float value;
    std::memcpy(&value, &fields, 4);
    return value * 0x1p112f;  // scales are finite
}

float scale_at(const Weight& w, size_t cell) {
    float scale;
    if (w.scale_type == NBIT_SCALE_F32) {
        std::memcpy(&scale, w.scales + cell * 4, 4);
        return scale;
    }
    uint16_t half;
    std::memcpy(&half, w.scales + cell * 2, 2);
    return float_from_half(half);
}

void restore_row(const Weight& w, int n, float* y) {
    const Planes planes = planes_of(w.bits);
    const int block = n / kBlockColumns, column = n % kBlockColumns;
    const uint8_t* codes = w.codes + w.offset(block);
    for (int k = 0; k < w.depth; ++k) {
        const int k_block = k / kBlockDepth;
        const size_t cell =
            (size_t(block) * w.groups + k_block / w.group_blocks) * kBlockColumns + size_t(column);
        const int zero = w.zeros ? w.zeros[cell] : 1 << (w.bits - 1);
        const unsigned code = load_code(codes + k_block * w.step(block), planes, k % kBlockDepth, column);
        y[k] = float(int(code) - zero) * scale_at(w, cell);
    }
}

}  // namespace
}  // namespace bitvox

using namespace bitvox;

extern "C" nbit_status nbit_lookup(const void* packed, size_t packed_bytes, const int64_t* rows, int64_t count,
                                   float* y) {
    Weight w;
    nbit_shape shape;
    const nbit_status status = open_weight(packed, packed_bytes, &w, &shape);
    if (status != NBIT_OK) return status;
    if (count > 0 && (!rows || !y)) return NBIT_BAD_POINTER;
    if (shape.taps != 1) return NBIT_BAD_SHAPE;
    for (int64_t i = 0; i < count; ++i) {
        if (rows[i] < 0 || rows[i] >= shape.outputs) return NBIT_BAD_SHAPE;
        restore_row(w, int(rows[i]), y + i * shape.depth);
    }
    return NBIT_OK;
}
