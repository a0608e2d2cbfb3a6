// From codes or portable planes to the packed form, and back to a checked view of it.
#include "pack.h"

#include <cmath>
#include <cstring>

#include "half.h"

namespace bitvox {
namespace {

nbit_status check_shape(const nbit_shape& s) {
    if (s.bits < 2 || s.bits > 8) return NBIT_BAD_BITS;
    if (s.outputs < 1 || s.outputs > kMaxOutputs || s.depth < 1 || s.depth > NBIT_MAX_DEPTH)
        return NBIT_BAD_SHAPE;
    if (s.taps < 1 || s.depth % s.taps != 0) return NBIT_BAD_SHAPE;
    if (s.group != 0 && s.group != 32 && s.group != 64 && s.group != 128) return NBIT_BAD_GROUP;
    if (s.group != 0 && (s.depth % s.group != 0 || s.taps != 1)) return NBIT_BAD_GROUP;
    if (s.scale_type < NBIT_SCALE_F32 || s.scale_type > NBIT_SCALE_STEPS) return NBIT_BAD_OPTION;
    if (s.has_zeros != 0 && s.has_zeros != 1) return NBIT_BAD_OPTION;
    if (s.scale_type == NBIT_SCALE_STEPS && (s.bits > kMostStepBits || !s.group || s.has_zeros))
        return NBIT_BAD_OPTION;
    return NBIT_OK;
}

size_t cells(const Weight& w) { return size_t(w.column_blocks) * w.groups * kBlockColumns; }

size_t code_bytes(const Weight& w) { return size_t(w.column_blocks) * w.k_blocks * w.block_bytes(); }

size_t step_bytes(const Weight& w) { return size_t(w.column_blocks) * w.step_groups * kBlockColumns; }

size_t total_bytes(const Weight& w) {
    return sizeof(Header) + code_bytes(w) + step_bytes(w) +
           cells(w) * (w.scale_bytes() + (w.has_zeros ? 1 : 0));
}

Weight measure(const nbit_shape& s) {
    Weight w{};
    w.bits = s.bits;
    w.outputs = s.outputs;
    w.depth = s.depth;
    w.taps = s.taps;
    w.scale_type = s.scale_type;
    w.has_zeros = s.has_zeros;
    w.k_blocks = int(ceil_div(s.depth, kBlockDepth));
    const int groups = s.group ? s.depth / s.group : 1;
    const bool steps = s.scale_type == NBIT_SCALE_STEPS;
    w.groups = steps ? 1 : groups;
    w.group_blocks = s.group && !steps ? s.group / kBlockDepth : w.k_blocks;
    w.step_groups = steps ? groups : 0;
    while (steps && kBlockDepth << w.step_shift < s.group) ++w.step_shift;
    w.column_blocks = int(ceil_div(s.outputs, kBlockColumns));
    return w;
}

void attach(Weight& w, const uint8_t* base) {
    w.codes = base + sizeof(Header);
    w.steps = w.step_groups ? w.codes + code_bytes(w) : nullptr;
    w.scales = w.codes + code_bytes(w) + step_bytes(w);
    w.zeros = w.has_zeros ? w.scales + cells(w) * w.scale_bytes() : nullptr;
}

// Reads code e of the flattened weight from one byte per code.
struct Bytes {
    const uint8_t* codes;
    unsigned operator()(size_t e) const { return codes[e]; }
};

// Reads code e from the planes, least significant last.
struct PlaneReader {
    Planes planes;
    const uint8_t* base[3];
    PlaneReader(const uint8_t* data, int bits, size_t count) : planes(planes_of(bits)), base{} {
        for (int p = 0; p < planes.count; ++p) {
            base[p] = data;
            data += plane_size(planes.width[p], count);
        }
    }
    static size_t plane_size(int width, size_t count) { return (count * width + 7) / 8; }
    unsigned operator()(size_t e) const {
        unsigned code = 0;
        for (int p = 0; p < planes.count; ++p) {
            const int width = planes.width[p];
            const int per_byte = 8 / width;
            const unsigned field = base[p][e / per_byte] >> (e % per_byte * width);
            code = code << width | (field & ((1u << width) - 1));
        }
        return code;
    }
};

void store_code(uint8_t* block, const Planes& planes, int bits, int k, int column, unsigned code) {
    const int quad = k / 4;
    int below = bits;  // code bits under the current plane
    for (int p = 0; p < planes.count; ++p) {
        const int width = planes.width[p];
        below -= width;
        const unsigned field = code >> below & ((1u << width) - 1);
        uint8_t& byte = block[quad % width * kLineBytes + column * 4 + k % 4];
        byte = uint8_t(byte | field << (quad / width * width));
        block += width * kLineBytes;
    }
}

template <class Reader>
nbit_status store_codes(const Weight& w, const Reader& code_at, uint8_t* codes) {
    const Planes planes = planes_of(w.bits);
    const int channels = w.depth / w.taps;
    for (int n = 0; n < w.outputs; ++n) {
        uint8_t* column = codes + w.offset(n / kBlockColumns);
        const size_t step = w.step(n / kBlockColumns);
        const size_t row = size_t(n) * w.depth;
        for (int k = 0; k < w.depth; ++k) {
            const int source = k % channels * w.taps + k / channels;  // [channel][tap] to tap first
            const unsigned code = code_at(row + source);
            if (code >> w.bits) return NBIT_BAD_CODE;
            store_code(column + k / kBlockDepth * step, planes, w.bits, k % kBlockDepth, n % kBlockColumns,
                       code);
        }
    }
    return NBIT_OK;
}

void store_scales(const Weight& w, const float* scales, const uint8_t* zeros, uint8_t* base) {
    uint8_t* scale_cells = base + (w.scales - w.codes);
    uint8_t* zero_cells = w.has_zeros ? base + (w.zeros - w.codes) : nullptr;
    for (int n = 0; n < w.outputs; ++n) {
        for (int g = 0; g < w.groups; ++g) {
            const size_t cell =
                (size_t(n / kBlockColumns) * w.groups + g) * kBlockColumns + n % kBlockColumns;
            const float scale = scales[size_t(n) * w.groups + g];
            const uint16_t half = half_from_float(scale);
            if (w.scale_type == NBIT_SCALE_F16) std::memcpy(scale_cells + cell * 2, &half, 2);
            else std::memcpy(scale_cells + cell * 4, &scale, 4);
            if (zero_cells) zero_cells[cell] = zeros[size_t(n) * w.groups + g];
        }
    }
}

// The float that makes every scale of an output a multiple 0..most, or 0 where there is none.
float step_unit(const float* scales, int count, int most) {
    float least = INFINITY;
    for (int g = 0; g < count; ++g) {
        if (scales[g] > 0 && scales[g] < least) least = scales[g];
    }
    if (std::isinf(least)) least = 1.0f;  // all are 0
    for (int step = 1; step <= most; ++step) {
        const float unit = least / float(step);
        bool fits = unit > 0;
        for (int g = 0; g < count && fits; ++g) {
            const float times = std::rint(scales[g] / unit);
            fits = times >= 0 && times <= float(most) && times * unit == scales[g];
        }
        if (fits) return unit;
    }
    return 0.0f;
}

nbit_status store_steps(const Weight& w, const float* scales, uint8_t* base) {
    uint8_t* steps = base + (w.steps - w.codes);
    uint8_t* units = base + (w.scales - w.codes);
    for (int n = 0; n < w.outputs; ++n) {
        const float* row = scales + size_t(n) * w.step_groups;
        const float unit = step_unit(row, w.step_groups, most_steps(w.bits));
        if (unit == 0) return NBIT_BAD_SCALE;
        std::memcpy(units + size_t(n) * 4, &unit, 4);
        uint8_t* block = steps + size_t(n / kBlockColumns) * w.step_groups * kBlockColumns;
        for (int g = 0; g < w.step_groups; ++g)
            block[g * kBlockColumns + n % kBlockColumns] = uint8_t(std::rint(row[g] / unit));
    }
    return NBIT_OK;
}

void store_header(const nbit_shape& s, void* packed) {
    Header h{};
    h.magic = kMagic;
    h.version = kVersion;
    h.bits = uint8_t(s.bits);
    h.scale_type = uint8_t(s.scale_type);
    h.outputs = s.outputs;
    h.depth = s.depth;
    h.group = s.group;
    h.taps = s.taps;
    h.has_zeros = s.has_zeros;
    std::memcpy(packed, &h, sizeof h);
}

template <class Reader>
nbit_status pack(const nbit_shape& shape, const Reader& reader, const float* scales, const uint8_t* zeros,
                 void* packed, size_t packed_bytes) {
    if (!scales || !packed || (shape.has_zeros && !zeros)) return NBIT_BAD_POINTER;
    if (reinterpret_cast<uintptr_t>(packed) % NBIT_ALIGNMENT) return NBIT_BAD_POINTER;
    Weight w = measure(shape);
    if (packed_bytes < total_bytes(w)) return NBIT_BAD_SIZE;
    attach(w, static_cast<uint8_t*>(packed));
    std::memset(packed, 0, total_bytes(w));
    uint8_t* codes = static_cast<uint8_t*>(packed) + sizeof(Header);
    nbit_status status = store_codes(w, reader, codes);
    if (status == NBIT_OK && w.steps) status = store_steps(w, scales, codes);
    if (status != NBIT_OK) return status;  // without a header the buffer stays unusable
    if (!w.steps) store_scales(w, scales, zeros, codes);
    store_header(shape, packed);
    return NBIT_OK;
}

}  // namespace

nbit_status open_weight(const void* packed, size_t packed_bytes, Weight* weight, nbit_shape* shape) {
    if (!packed || reinterpret_cast<uintptr_t>(packed) % NBIT_ALIGNMENT) return NBIT_BAD_POINTER;
    if (packed_bytes < sizeof(Header)) return NBIT_BAD_SIZE;
    Header h;
    std::memcpy(&h, packed, sizeof h);
    if (h.magic != kMagic || h.version != kVersion) return NBIT_BAD_HEADER;
    for (const uint8_t byte : h.reserved) {
        if (byte) return NBIT_BAD_HEADER;
    }
    *shape = {h.bits, h.outputs, h.depth, h.group, h.taps, h.scale_type, h.has_zeros};
    if (check_shape(*shape) != NBIT_OK) return NBIT_BAD_HEADER;
    *weight = measure(*shape);
    if (packed_bytes < total_bytes(*weight)) return NBIT_BAD_SIZE;
    attach(*weight, static_cast<const uint8_t*>(packed));
    return NBIT_OK;
}

}  // namespace bitvox

using namespace bitvox;

extern "C" {

nbit_status nbit_packed_bytes(const nbit_shape* shape, size_t* bytes) {
    if (!shape || !bytes) return NBIT_BAD_POINTER;
    const nbit_status status = check_shape(*shape);
    if (status == NBIT_OK) *bytes = total_bytes(measure(*shape));
    return status;
}

nbit_status nbit_pack(const nbit_shape* shape, const uint8_t* codes, const float* scales,
                      const uint8_t* zeros, void* packed, size_t packed_bytes) {
    if (!shape || !codes) return NBIT_BAD_POINTER;
    const nbit_status status = check_shape(*shape);
    return status != NBIT_OK ? status : pack(*shape, Bytes{codes}, scales, zeros, packed, packed_bytes);
}

nbit_status nbit_pack_from_planes(const nbit_shape* shape, const uint8_t* planes, size_t plane_bytes,
                                  const float* scales, const uint8_t* zeros, void* packed,
                                  size_t packed_bytes) {
    if (!shape || !planes) return NBIT_BAD_POINTER;
    const nbit_status status = check_shape(*shape);
    if (status != NBIT_OK) return status;
    const size_t count = size_t(shape->outputs) * shape->depth;
    const Planes widths = planes_of(shape->bits);
    size_t expected = 0;
    for (int p = 0; p < widths.count; ++p) expected += PlaneReader::plane_size(widths.width[p], count);
    if (plane_bytes != expected) return NBIT_BAD_SIZE;
    return pack(*shape, PlaneReader(planes, shape->bits, count), scales, zeros, packed, packed_bytes);
}

nbit_status nbit_inspect(const void* packed, size_t packed_bytes, nbit_shape* shape) {
    if (!shape) return NBIT_BAD_POINTER;
    Weight weight;
    return open_weight(packed, packed_bytes, &weight, shape);
}

const char* nbit_status_text(nbit_status status) {
    switch (status) {
        case NBIT_OK:
            return "ok";
        case NBIT_BAD_BITS:
            return "bits must be 2..8";
        case NBIT_BAD_SHAPE:
            return "a dimension is outside its limits or does not divide as it must";
        case NBIT_BAD_GROUP:
            return "group must be 0, 32, 64 or 128, divide the depth, and be 0 for taps > 1";
        case NBIT_BAD_CODE:
            return "a code does not fit its width";
        case NBIT_BAD_POINTER:
            return "a required pointer is null or not aligned to 64 bytes";
        case NBIT_BAD_SIZE:
            return "a buffer has the wrong size";
        case NBIT_BAD_HEADER:
            return "the buffer does not hold a packed weight of this version";
        case NBIT_BAD_ISA:
            return "this CPU or this build does not have the instruction set";
        case NBIT_BAD_OPTION:
            return "an option holds an unknown value";
        case NBIT_BAD_SCALE:
            return "the scales of an output are no small multiples of one number";
    }
    return "unknown status";
}

}  // extern "C"
