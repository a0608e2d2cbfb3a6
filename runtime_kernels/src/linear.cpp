// y = activation(x * weight^T + bias), row blocks by panels.
#include <cmath>
#include <cstring>

#include "dispatch.h"
#include "pack.h"
#include "panel.h"
#include "pool.h"

namespace bitvox {
namespace {

constexpr int kRowsPerThread = 16;              // fewer, and threads share columns instead of rows
constexpr int64_t kBlockBytes = 512 << 10;      // quantised rows that stay in L2 beside a panel
constexpr int64_t kMatrixBlockBytes = 1 << 20;  // CPUs with matrix registers have 2 MB of it
constexpr float kSmallest = 0x1p-100f;

struct Plan {
    Layer layer;
    int threads;
    bool split_rows;
    int block_rows;  // rows that are quantised and multiplied together
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
    const int available = nbit_pool_threads(call.pool);
    const int64_t panels = ceil_div(weight.column_blocks, kInterleave);
    plan.split_rows = call.rows >= int64_t(kRowsPerThread) * available;
    plan.threads = plan.split_rows || panels >= available ? available : int(panels);
    const int64_t rows = plan.split_rows ? ceil_div(call.rows, plan.threads) : call.rows;
    plan.block_rows = rows_per_block(rows, plan.stride, kernels->matrix);
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

void run_block(const nbit_linear_call& call, const Plan& plan, int64_t first, int count, int begin, int end,
               Buffers& b) {
    const Layer& layer = plan.layer;
    quantise_rows(call, plan, first, count, b);
    const Rows rows{b.x, plan.stride, count, b.x_scales, b.x_offsets};
    const ptrdiff_t at = first * call.y_stride;
    const MatrixSession session(layer, count);
    const Output out{call.y ? call.y + at : nullptr, call.sums ? call.sums + at : nullptr, call.y_stride, 0};
    for (int column_block = begin; column_block < end;) {
        const int blocks = panel_width(layer, count, column_block, end);
        run_panel(layer, rows, column_block, blocks, layer.weight.outputs, b.scratch, out);
        column_block += blocks;
    }
}

int64_t share(int64_t total, int parts, int index) { return total * index / parts; }

void run_thread(void* context, int index) {
    const Job& job = *static_cast<const Job*>(context);
    const nbit_linear_call& call = *job.call;
    const Plan& plan = *job.plan;
    Carver carver(static_cast<uint8_t*>(call.workspace) + plan.thread_bytes * index);
    Buffers buffers = carve(carver, plan);
    int64_t row = 0, last = call.rows;
    int begin = 0, end = plan.layer.weight.column_blocks;
    if (plan.split_rows) {
        row = share(call.rows, plan.threads, index);
        last = share(call.rows, plan.threads, index + 1);
    } else {
        const int64_t panels = ceil_div(end, kInterleave);
        begin = int(share(panels, plan.threads, index)) * kInterleave;
        const int stop = int(share(panels, plan.threads, index + 1)) * kInterleave;
        end = stop < end ? stop : end;
    }
    for (; row < last; row += plan.block_rows) {
        const int64_t left = last - row;
        run_block(call, plan, row, int(left < plan.block_rows ? left : plan.block_rows), begin, end, buffers);
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
    run_tasks(call->pool, plan.threads, run_thread, &job);
    return NBIT_OK;
}

}  // extern "C"
