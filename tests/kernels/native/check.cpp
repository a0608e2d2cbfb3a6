// Checks that need no Python, so that they run on every CPU, under emulation and under sanitizers:
//
// - `agree SEED`: every path gives the bytes of the scalar path, with all buffers between guard pages;
// - `fuzz SEED N`: N damaged headers and calls; each is refused or runs, none touches foreign memory;
// - `repeat ISA BITS ROWS TIMES`: one 256 x 256 linear so many times, for counting instructions.
#include <string>

#include "support.h"

namespace {

struct LinearCase {
    nbit_shape shape;
    int rows;
    bool integers, calibrated;
};

// Runs one linear on one path; results are compared as bytes, so float and integer share the buffer.
void run_linear(const LinearCase& c, const TestWeight& w, const Guarded& x, const Guarded& bias,
                const char* isa, nbit_pool* pool, const Guarded& y) {
    nbit_linear_call call{};
    call.weight = w.packed.aligned();
    call.weight_bytes = w.packed.bytes();
    call.rows = c.rows;
    call.x_stride = c.shape.depth;
    call.y_stride = c.shape.outputs;
    call.isa = isa;
    call.pool = pool;
    if (c.integers) {
        call.xq = x.as<int8_t>();
        call.x_zero = c.calibrated ? -7 : 0;
        call.sums = y.as<int32_t>();
    } else {
        call.x = x.as<float>();
        call.x_scale = c.calibrated ? 0.02f : 0.0f;
        call.x_zero = c.calibrated ? 11 : 0;
        call.bias = bias.as<float>();
        call.y = y.as<float>();
    }
    run(call);
}

void compare_linear(Random& random, const LinearCase& c, nbit_pool* pool) {
    const TestWeight weight = random_weight(random, c.shape);
    const size_t inputs = size_t(c.rows) * c.shape.depth, outputs = size_t(c.rows) * c.shape.outputs;
    Guarded x(inputs * (c.integers ? 1 : 4)), bias(size_t(c.shape.outputs) * 4);
    for (size_t i = 0; i < inputs; ++i) {
        if (c.integers) x.as<int8_t>()[i] = int8_t(random.below(256) - 128);
        else x.as<float>()[i] = random.normal();
    }
    for (int i = 0; i < c.shape.outputs; ++i) bias.as<float>()[i] = random.normal();
    Guarded expected(outputs * 4);
    run_linear(c, weight, x, bias, "scalar", nullptr, expected);
    for (const char* isa : isas()) {
        Guarded y(outputs * 4);
        run_linear(c, weight, x, bias, isa, pool, y);
        if (std::memcmp(y.as<char>(), expected.as<char>(), outputs * 4) == 0) continue;
        std::printf(
            "%s: %d bits, %dx%d, group %d, scale type %d, zeros %d, %d rows, integers %d, calibrated %d\n",
            isa, c.shape.bits, c.shape.outputs, c.shape.depth, c.shape.group, c.shape.scale_type,
            c.shape.has_zeros, c.rows, c.integers, c.calibrated);
        require(false, "a path differs from the scalar one");
    }
}

void agree_linear(Random& random, nbit_pool* pool) {
    const int depths[] = {32, 64, 96, 128, 7, 33, 200, 256, 1050, 2200};
    const int widths[] = {1, 16, 17, 33, 48, 64, 70, 96, 130};
    const int groups[] = {0, 32, 64, 128};
    for (int bits = 2; bits <= 8; ++bits) {
        for (int step = 1; step <= 23; ++step) {
            const int rows = step <= 20 ? step : 16 * (step - 19) + int(random.below(3)) - 1;
            for (const int group : groups) {
                LinearCase c{};
                c.shape = {bits, widths[random.below(9)], depths[random.below(10)], group,
                           1,    random.below(2),         random.below(2)};
                if (group) c.shape.depth = group * (1 + random.below(3));
                const bool steps = group && bits <= 4 && !c.shape.has_zeros && random.below(2);
                if (steps) c.shape.scale_type = NBIT_SCALE_STEPS;
                c.rows = rows;
                c.calibrated = random.below(3) == 0;
                c.integers = (group == 0 || steps) && random.below(2);
                compare_linear(random, c, random.below(4) ? nullptr : pool);
            }
        }
    }
}

struct ConvCase {
    nbit_shape shape;
    int channels, taps, frames, stride, padding, dilation, groups;
};

void run_conv(const ConvCase& c, const TestWeight& w, const Guarded& x, const Guarded& bias, const char* isa,
              nbit_pool* pool, std::vector<float>& y) {
    nbit_conv1d_call call{};
    call.weight = w.packed.aligned();
    call.weight_bytes = w.packed.bytes();
    call.x = x.as<float>();
    call.batch = 2;
    call.channels = c.channels;
    call.frames = c.frames;
    call.stride = c.stride;
    call.padding = c.padding;
    call.dilation = c.dilation;
    call.groups = c.groups;
    call.bias = bias.as<float>();
    call.isa = isa;
    call.pool = pool;
    int64_t frames_out = 0;
    require(nbit_conv1d_frames(&call, &frames_out), "nbit_conv1d_frames");
    Guarded out(size_t(2 * frames_out * c.shape.outputs) * 4);
    call.y = out.as<float>();
    run(call);
    y.assign(call.y, call.y + 2 * frames_out * c.shape.outputs);
}

ConvCase random_conv(Random& random) {
    const int group_choices[] = {1, 1, 2, 4};
    ConvCase c{};
    c.groups = group_choices[random.below(4)];
    const int per_group = random.below(3) ? 1 + random.below(40) : 1;
    c.channels = per_group * c.groups;
    c.taps = 1 + random.below(6);
    c.stride = 1 + random.below(3);
    c.dilation = random.below(4) ? 1 : 2;
    c.padding = random.below(4);
    c.frames = c.taps * c.dilation + random.below(320);
    c.shape.bits = 2 + random.below(7);
    c.shape.outputs = c.groups * (1 + random.below(40));
    c.shape.depth = per_group * c.taps;
    c.shape.taps = random.below(2) ? c.taps : 1;
    c.shape.has_zeros = random.below(2);
    return c;
}

void agree_conv(Random& random, nbit_pool* pool) {
    for (int i = 0; i < 60; ++i) {
        const ConvCase c = random_conv(random);
        const TestWeight weight = random_weight(random, c.shape);
        Guarded x(size_t(2) * c.channels * c.frames * 4), bias(size_t(c.shape.outputs) * 4);
        for (int e = 0; e < 2 * c.channels * c.frames; ++e) x.as<float>()[e] = random.normal();
        for (int e = 0; e < c.shape.outputs; ++e) bias.as<float>()[e] = random.normal();
        std::vector<float> expected, y;
        run_conv(c, weight, x, bias, "scalar", nullptr, expected);
        for (const char* isa : isas()) {
            run_conv(c, weight, x, bias, isa, pool, y);
            if (std::memcmp(y.data(), expected.data(), y.size() * 4) == 0) continue;
            std::printf(
                "%s: %d bits, %d outputs, %d channels, %d taps, stride %d, padding %d, dilation %d, groups "
                "%d\n",
                isa, c.shape.bits, c.shape.outputs, c.channels, c.taps, c.stride, c.padding, c.dilation,
                c.groups);
            require(false, "a convolution differs from the scalar one");
        }
    }
}

struct AttentionCase {
    int batch, heads, queries, keys, width;
    bool halves, masked;
};

// Rows as linears leave them, or keys and values by head as a cache keeps them.
nbit_attention_call attention_of(const AttentionCase& c, const Guarded& q, const Guarded& k, const Guarded& v,
                                 const Guarded& mask, const Guarded& y) {
    const int64_t columns = int64_t(c.heads) * c.width, item = c.keys * columns;
    nbit_attention_call call{};
    call.batch = c.batch;
    call.queries = c.queries;
    call.keys = c.keys;
    call.heads = c.heads;
    call.width = c.width;
    call.scale = 0.3f;
    call.q = {q.as<float>(), c.queries * columns, c.width, columns};
    call.k = {k.as<char>(), item, c.width, columns};
    call.v = {v.as<char>(), item, c.width, columns};
    if (c.halves) {
        call.keys_across = call.halves = 1;
        call.k = {k.as<char>(), item, int64_t(c.keys) * c.width, c.keys};
        call.v = {v.as<char>(), item, int64_t(c.keys) * c.width, c.width};
    }
    if (c.masked) call.mask = {mask.as<float>(), int64_t(c.queries) * c.keys, 0, c.keys};
    call.y = y.as<float>();
    return call;
}

void agree_attention(Random& random, nbit_pool* pool) {
    const int counts[] = {1, 2, 7, 8, 15, 47, 48, 49, 64, 100}, widths[] = {1, 3, 16, 20, 48, 64, 70};
    for (int i = 0; i < 40; ++i) {
        const AttentionCase c = {1 + random.below(2),      1 + random.below(3),     counts[random.below(10)],
                                 counts[random.below(10)], widths[random.below(7)], random.below(3) == 0,
                                 random.below(3) == 0};
        const size_t queries = size_t(c.batch) * c.queries * c.heads * c.width;
        const size_t keys = size_t(c.batch) * c.keys * c.heads * c.width, kept = c.halves ? 2 : 4;
        const size_t masked = size_t(c.batch) * c.queries * c.keys;
        Guarded q(queries * 4), k(keys * kept), v(keys * kept), mask(masked * 4), expected(queries * 4);
        for (size_t e = 0; e < queries; ++e) q.as<float>()[e] = random.normal();
        for (size_t e = 0; e < keys; ++e) {
            for (const Guarded* kv : {&k, &v}) {
                // Finite halves of any size, subnormal ones too.
                if (c.halves) kv->as<uint16_t>()[e] = uint16_t(random.below(2) << 15 | random.below(0x4400));
                else kv->as<float>()[e] = random.normal();
            }
        }
        for (size_t e = 0; e < masked; ++e) mask.as<float>()[e] = random.normal();
        nbit_attention_call call = attention_of(c, q, k, v, mask, expected);
        call.isa = "scalar";
        run(call);
        for (const char* isa : isas()) {
            Guarded y(queries * 4);
            call = attention_of(c, q, k, v, mask, y);
            call.isa = isa;
            call.pool = random.below(2) ? pool : nullptr;
            run(call);
            if (std::memcmp(y.as<char>(), expected.as<char>(), queries * 4) == 0) continue;
            std::printf("%s: %d x %d heads, %d queries, %d keys, width %d, halves %d, masked %d\n", isa, c.batch,
                        c.heads, c.queries, c.keys, c.width, c.halves, c.masked);
            require(false, "attention differs from the scalar path");
        }
    }
}

// One header with some bytes replaced, in a buffer of its old size.
void fuzz_header(Random& random) {
    const nbit_shape shape = {
        2 + random.below(7), 1 + random.below(40), 32 * (1 + random.below(4)), 0, 1, 0, 0};
    TestWeight weight = random_weight(random, shape);
    uint8_t* header = static_cast<uint8_t*>(weight.packed.aligned());
    for (int i = random.below(4); i >= 0; --i) header[random.below(64)] = uint8_t(random.below(256));
    nbit_shape seen;
    const size_t bytes = weight.packed.bytes() >> (random.below(4) == 0);
    if (nbit_inspect(header, bytes, &seen) != NBIT_OK || seen.taps != 1) return;
    require(seen.outputs <= 4096 && seen.depth <= 65536, "a header promises more than its buffer can hold");
    std::vector<float> x(size_t(seen.depth), 1.0f), y(size_t(seen.outputs));
    nbit_linear_call call{};
    call.weight = header;
    call.weight_bytes = bytes;
    call.rows = 1;
    call.x = x.data();
    call.x_stride = seen.depth;
    call.y = y.data();
    call.y_stride = seen.outputs;
    run(call);
}

int any_of(Random& random, int usual) {
    const int odd[] = {0, -1, 1, 2, 7, 1 << 30, INT32_MAX, INT32_MIN, usual, usual};
    return odd[random.below(10)];
}

// Shapes and calls with wild numbers: packing and running may refuse, never crash.
void fuzz_calls(Random& random) {
    nbit_shape shape = {any_of(random, 4), any_of(random, 20), any_of(random, 96), any_of(random, 32),
                        any_of(random, 3), any_of(random, 0),  any_of(random, 1)};
    size_t bytes = 0;
    if (nbit_packed_bytes(&shape, &bytes) == NBIT_OK) require(bytes > 64, "a size without codes");
    const nbit_shape good = {4, 20, 96, 0, 3, 0, 1};
    const TestWeight weight = random_weight(random, good);
    std::vector<float> x(8 * 2 * 200, 1.0f), y(1 << 16);
    nbit_conv1d_call call{};
    call.weight = weight.packed.aligned();
    call.weight_bytes = weight.packed.bytes();
    call.x = x.data();
    call.y = y.data();
    call.batch = 1;
    call.channels = any_of(random, 32);
    call.frames = any_of(random, 60);
    call.stride = any_of(random, 1);
    call.padding = any_of(random, 1);
    call.dilation = any_of(random, 1);
    call.groups = any_of(random, 1);
    int64_t frames = 0;
    if (nbit_conv1d_frames(&call, &frames) != NBIT_OK) return;
    require(frames >= 1, "a convolution without frames");
    if (call.channels * call.frames <= int64_t(x.size()) && frames * 20 <= int64_t(y.size())) run(call);
}

void repeat(const char* isa, int bits, int rows, int times) {
    Random random{1};
    const LinearCase c{{bits, 256, 256, 0, 1, 0, 0}, rows, false, false};
    const TestWeight weight = random_weight(random, c.shape);
    Guarded x(size_t(rows) * 256 * 4), bias(256 * 4), y(size_t(rows) * 256 * 4);
    for (int i = 0; i < rows * 256; ++i) x.as<float>()[i] = random.normal();
    for (int i = 0; i < times; ++i) run_linear(c, weight, x, bias, isa, nullptr, y);
}

}  // namespace

int main(int argc, char** argv) {
    require(argc >= 3, "usage: check agree SEED | check fuzz SEED N | check repeat ISA BITS ROWS TIMES");
    if (std::string(argv[1]) == "repeat" && argc == 6) {
        repeat(argv[2], std::atoi(argv[3]), std::atoi(argv[4]), std::atoi(argv[5]));
        return 0;
    }
    Random random{uint64_t(std::atoll(argv[2]))};
    if (std::string(argv[1]) == "agree") {
        nbit_pool* pool = nbit_pool_create(2);
        require(pool != nullptr, "nbit_pool_create");
        agree_linear(random, pool);
        agree_conv(random, pool);
        agree_attention(random, pool);
        nbit_pool_destroy(pool);
    } else {
        for (int i = std::atoi(argv[3]); i > 0; --i) {
            fuzz_header(random);
            fuzz_calls(random);
        }
    }
    std::printf("ok:");
    for (const char* isa : isas()) std::printf(" %s", isa);
    std::printf("\n");
    return 0;
}
