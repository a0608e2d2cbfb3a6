// y = activation(x * weight^T + bias), row blocks by panels.
#include <cmath>
#include <cstring>
#include <optional>

#include "dispatch.h"
#include "pack.h"
#include "panel.h"
#include "pool.h"

namespace bitvox {
namespace {

// Threads share either the rows, and each unpacks all panels, or the panels, and each quantises all rows. So
// many rows cost as much to quantise as a column of codes to unpack.
constexpr double kRowsPerColumn = 0.25;
constexpr int64_t kBlockBytes = 512 << 10;      // quantised rows that stay in L2 beside a panel
constexpr int64_t kMatrixBlockBytes = 1 << 20;  // CPUs with matrix registers have 2 MB of it
constexpr float kSmallest = 0x1p-100f;

struct Plan {
    Layer layer;
    int threads;
    int block_rows;      // rows that are quantised and multiplied together
    int64_t row_blocks;  // of so many rows, the last of fewer
    int64_t stripes;     // parts of the columns; a piece of work is one stripe of one row block
    int stripe_blocks;   // column blocks of one
    ptrdiff_t stride;
    size_t thread_bytes;
};

struct Buffers {
    Scratch scratch;
    int8_t* x;
    float* x_scales;
    int32_t* x_offsets;
};

Buffers carve(Carver& carver, const Plan& plan) {
    Buffers b;
    b.scratch = carve_scratch(carver, plan.layer, plan.block_rows);
    b.x = carver.take<int8_t>(size_t(plan.block_rows) * plan.stride);
    b.x_scales = carver.take<float>(plan.block_rows);
    b.x_offsets = carver.take<int32_t>(size_t(plan.block_rows) * plan.layer.weight.groups);
    return b;
}

int rows_per_block(int64_t rows, ptrdiff_t stride, bool matrix) {
    int64_t most = (matrix ? kMatrixBlockBytes : kBlockBytes) / stride / kMaxRows * kMaxRows;
    most = most < 32 ? 32 : most > 256 ? 256 : most;
    return int(ceil_div(rows, ceil_div(rows, most)));
}

Plan make_plan(const nbit_linear_call& call, const Kernels* kernels, const Weight& weight) {
    Plan plan{};
    plan.layer = {kernels, weight, call.bias, call.activation, call.x_zero};
    plan.stride = row_stride(weight.depth);
    const bool shared = worth_sharing(double(call.rows) * weight.outputs * weight.depth);
    plan.threads = shared ? nbit_pool_threads(call.pool) : 1;
    const bool share_rows = call.rows > kRowsPerColumn * weight.outputs;
    const int64_t rows = share_rows ? ceil_div(call.rows, plan.threads) : call.rows;
    plan.block_rows = rows_per_block(rows, plan.stride, kernels->matrix);
    plan.row_blocks = ceil_div(call.rows, plan.block_rows);
    plan.stripe_blocks = share_rows || plan.threads == 1 ? weight.column_blocks : kInterleave;
    plan.stripes = ceil_div(weight.column_blocks, plan.stripe_blocks);
    Carver carver(nullptr);
    carve(carver, plan);
    plan.thread_bytes = carver.used();
    return plan;
}

nbit_status check(const nbit_linear_call& call) {
    if (call.rows < 1) return NBIT_BAD_SHAPE;
    if (!call.x == !call.xq || !call.y == !call.sums) return NBIT_BAD_POINTER;
    if (!(call.x_scale >= 0) || std::isinf(call.x_scale)) return NBIT_BAD_OPTION;
    if (call.xq && call.x_scale == 0 && call.y) return NBIT_BAD_OPTION;
    if (call.x_zero < -128 || call.x_zero > 127) return NBIT_BAD_OPTION;
    if (call.x && call.x_scale == 0 && call.x_zero != 0) return NBIT_BAD_OPTION;
    if (call.activation != NBIT_ACTIVATION_NONE && call.activation != NBIT_ACTIVATION_GELU)
        return NBIT_BAD_OPTION;
    return NBIT_OK;
}

nbit_status prepare(const nbit_linear_call* call, Plan* plan) {
    if (!call) return NBIT_BAD_POINTER;
    Weight weight;
    nbit_shape shape;
    nbit_status status = open_weight(call->weight, call->weight_bytes, &weight, &shape);
    if (status == NBIT_OK) status = check(*call);
    if (status != NBIT_OK) return status;
    if (weight.taps != 1 || call->x_stride < weight.depth || call->y_stride < weight.outputs)
        return NBIT_BAD_SHAPE;
    if (call->sums && weight.groups > 1) return NBIT_BAD_OPTION;
    const Kernels* kernels = find_kernels(call->isa);
    if (!kernels) return NBIT_BAD_ISA;
    *plan = make_plan(*call, kernels, weight);
    return NBIT_OK;
}

// Fills one row of q and its scale, with zeros up to the next block of k; NaN and infinity are told by the
// scale.
void quantise_row(const nbit_linear_call& call, const Plan& plan, int64_t row, int8_t* q, float* scale) {
    const size_t depth = plan.layer.weight.depth;
    const Kernels& kernels = *plan.layer.kernels;
    *scale = call.x_scale;
    if (call.xq) {
        std::memcpy(q, call.xq + row * call.x_stride, depth);
    } else if (call.x_scale > 0) {
        kernels.quantise_calibrated(call.x + row * call.x_stride, call.x_scale, call.x_zero, q, depth);
    } else {
        const float* x = call.x + row * call.x_stride;
        const float factor = dynamic_factor(kernels.magnitude(x, depth), scale);
        if (factor > 0) kernels.quantise(x, factor, q, depth);
        else std::memset(q, 0, depth);
    }
    std::memset(q + depth, 0, size_t(plan.stride) - depth);
}

void quantise_rows(const nbit_linear_call& call, const Plan& plan, int64_t first, int count, Buffers& b) {
    const Weight& w = plan.layer.weight;
    const int group_depth = w.group_blocks * kBlockDepth;
    const int32_t factor = offset_factor(plan.layer);
    for (int r = 0; r < count; ++r) {
        int8_t* q = b.x + r * plan.stride;
        quantise_row(call, plan, first + r, q, b.x_scales + r);
        int32_t* offsets = b.x_offsets + r * w.groups;
        plan.layer.kernels->group_sums(q, group_depth, w.groups, factor, offsets);
    }
}

struct Job {
    const nbit_linear_call* call;
    const Plan* plan;
};

// Stripes [begin, end) of rows that are quantised already.
void multiply_rows(const nbit_linear_call& call, const Plan& plan, int64_t first, int count, int64_t begin,
                   int64_t end, Buffers& b) {
    const Layer& layer = plan.layer;
    const Rows rows{b.x, plan.stride, count, b.x_scales, b.x_offsets};
    const ptrdiff_t at = first * call.y_stride;
    const Output out{call.y ? call.y + at : nullptr, call.sums ? call.sums + at : nullptr, call.y_stride, 0};
    const int stop = end == plan.stripes ? layer.weight.column_blocks : int(end) * plan.stripe_blocks;
    for (int column_block = int(begin) * plan.stripe_blocks; column_block < stop;) {
        const int blocks = panel_width(layer, count, column_block, stop);
        run_panel(layer, rows, column_block, blocks, layer.weight.outputs, b.scratch, out);
        column_block += blocks;
    }
}

void run_thread(void* context, int thread, Pieces& pieces) {
    const Job& job = *static_cast<const Job*>(context);
    const nbit_linear_call& call = *job.call;
    const Plan& plan = *job.plan;
    Carver carver(static_cast<uint8_t*>(call.workspace) + plan.thread_bytes * thread);
    Buffers buffers = carve(carver, plan);
    int64_t quantised = -1;  // row block
    std::optional<MatrixSession> session;
    for (Range range; pieces.next(&range);) {
        while (range.begin < range.end) {
            const int64_t block = range.begin / plan.stripes, before = block * plan.stripes;
            const int64_t end = range.end < before + plan.stripes ? range.end : before + plan.stripes;
            const int64_t first = block * plan.block_rows, left = call.rows - first;
            const int count = int(left < plan.block_rows ? left : plan.block_rows);
            if (block != quantised) {
                session.reset();
                quantise_rows(call, plan, first, count, buffers);
                session.emplace(plan.layer, count);
                quantised = block;
            }
            multiply_rows(call, plan, first, count, range.begin - before, end - before, buffers);
            range.begin = end;
        }
    }
}

}  // namespace

float dynamic_factor(uint32_t magnitude_bits, float* scale) {
    float magnitude;
    std::memcpy(&magnitude, &magnitude_bits, 4);
    *scale = std::isfinite(magnitude) ? magnitude / 127.0f : NAN;
    if (magnitude < kSmallest) *scale = 0.0f;
    return *scale > 0 ? 127.0f / magnitude : 0.0f;
}

}  // namespace bitvox

using namespace bitvox;

extern "C" {

nbit_status nbit_linear_workspace(const nbit_linear_call* call, size_t* bytes) {
    if (!bytes) return NBIT_BAD_POINTER;
    Plan plan;
    const nbit_status status = prepare(call, &plan);
    if (status == NBIT_OK) *bytes = plan.thread_bytes * plan.threads;
    return status;
}

nbit_status nbit_linear(const nbit_linear_call* call) {
    Plan plan;
    const nbit_status status = prepare(call, &plan);
    if (status != NBIT_OK) return status;
    if (!call->workspace || reinterpret_cast<uintptr_t>(call->workspace) % NBIT_ALIGNMENT)
        return NBIT_BAD_POINTER;
    if (call->workspace_bytes < plan.thread_bytes * plan.threads) return NBIT_BAD_SIZE;
    Job job{call, &plan};
    run_pieces(plan.threads > 1 ? call->pool : nullptr, plan.row_blocks * plan.stripes, run_thread, &job);
    return NBIT_OK;
}

}  // extern "C"
