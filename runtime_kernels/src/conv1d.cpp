// Conv1d as a linear over windows. Activations are quantised once into [group][frame][channel]; with codes
// stored tap first, the window of an output frame is then `taps * channels` bytes in a row, and the next one
// starts `stride * channels` further on: the tiles read the windows where they lie, and no im2col matrix
// exists. Dilated windows and weights packed flat are gathered, one run of frames and one group at a time.
#include <cmath>
#include <cstring>
#include <optional>

#include "dispatch.h"
#include "pack.h"
#include "panel.h"
#include "pool.h"

namespace bitvox {
namespace {

constexpr int kRunsPerThread = 4;  // fewer, and threads share outputs too, for which each quantises the run

struct Plan {
    Layer layer;
    int taps, stride, padding, dilation, groups;
    int group_channels, group_outputs;
    int64_t frames_in, frames_out;
    int64_t runs;  // of all batch items
    int threads;
    int stripes;          // parts of the outputs; a piece of work is one stripe of one run
    int stripe_outputs;   // a group of the convolution or some panels
    bool gather;          // windows must be copied
    bool tap_first;       // order of the codes inside a window
    int window_frames;    // input frames that a full run reads
    ptrdiff_t row_bytes;  // of a gathered window
    size_t thread_bytes;
};

struct Buffers {
    Scratch scratch;
    int8_t* frames;       // [groups][window_frames][group_channels]
    int32_t* frame_sums;  // [window_frames], of one group
    int8_t* rows;         // gathered windows of one group
    float* scales;
    int32_t* offsets;
    float* y;  // [NBIT_CONV_FRAMES][panel columns]
};

Buffers carve(Carver& carver, const Plan& p) {
    const Weight& w = p.layer.weight;
    Buffers b;
    b.scratch = carve_scratch(carver, p.layer, NBIT_CONV_FRAMES);
    const size_t channels = size_t(p.groups) * p.group_channels;
    b.frames = carver.take<int8_t>(p.window_frames * channels + kLineBytes);
    b.frame_sums = carver.take<int32_t>(p.window_frames);
    b.rows = carver.take<int8_t>(p.gather ? size_t(NBIT_CONV_FRAMES) * p.row_bytes : 0);
    b.scales = carver.take<float>(NBIT_CONV_FRAMES);
    b.offsets = carver.take<int32_t>(size_t(NBIT_CONV_FRAMES) * w.groups);
    b.y = carver.take<float>(size_t(NBIT_CONV_FRAMES) * kMaxRowBlocks * kBlockColumns);
    return b;
}

nbit_status check(const nbit_conv1d_call& c, const Weight& w) {
    if (c.batch < 1 || c.channels < 1 || c.frames < 1 || c.stride < 1 || c.padding < 0) return NBIT_BAD_SHAPE;
    if (c.dilation < 1 || c.groups < 1 || c.padding > (1 << 20) || c.frames > (int64_t(1) << 40))
        return NBIT_BAD_SHAPE;
    if (c.channels % c.groups || w.outputs % c.groups || w.depth % (c.channels / c.groups))
        return NBIT_BAD_SHAPE;
    if (w.taps != 1 && w.depth / w.taps != c.channels / c.groups) return NBIT_BAD_SHAPE;
    if (!(c.x_scale >= 0) || std::isinf(c.x_scale)) return NBIT_BAD_OPTION;
    if (c.x_zero < -128 || c.x_zero > 127 || (c.x_scale == 0 && c.x_zero != 0)) return NBIT_BAD_OPTION;
    if (c.activation != NBIT_ACTIVATION_NONE && c.activation != NBIT_ACTIVATION_GELU) return NBIT_BAD_OPTION;
    return NBIT_OK;
}

nbit_status prepare(const nbit_conv1d_call* call, Plan* plan) {
    if (!call) return NBIT_BAD_POINTER;
    Weight w;
    nbit_shape shape;
    nbit_status status = open_weight(call->weight, call->weight_bytes, &w, &shape);
    if (status == NBIT_OK) status = check(*call, w);
    if (status != NBIT_OK) return status;
    const Kernels* kernels = find_kernels(call->isa);
    if (!kernels) return NBIT_BAD_ISA;
    Plan p{};
    p.layer = {kernels, w, call->bias, call->activation, call->x_zero};
    p.stride = call->stride;
    p.padding = call->padding;
    p.dilation = call->dilation;
    p.groups = call->groups;
    p.group_channels = int(call->channels / call->groups);
    p.group_outputs = w.outputs / call->groups;
    p.taps = w.depth / p.group_channels;
    p.frames_in = call->frames;
    const int64_t reach = int64_t(p.taps - 1) * p.dilation + 1;
    if (p.frames_in + 2 * p.padding < reach) return NBIT_BAD_SHAPE;
    p.frames_out = (p.frames_in + 2 * p.padding - reach) / p.stride + 1;
    p.runs = call->batch * ceil_div(p.frames_out, NBIT_CONV_FRAMES);
    const int64_t run_frames = p.frames_out < NBIT_CONV_FRAMES ? p.frames_out : NBIT_CONV_FRAMES;
    const int64_t window_frames = (run_frames - 1) * p.stride + reach;
    if (window_frames > (1 << 24)) return NBIT_BAD_SHAPE;
    p.window_frames = int(window_frames);
    p.tap_first = w.taps == p.taps || p.group_channels == 1;
    const bool padded = w.depth % kBlockDepth && kernels->code_bias(w.bits);  // a zero code would not be zero
    p.gather = !p.tap_first || (p.dilation > 1 && p.taps > 1) || padded;
    p.row_bytes = row_stride(w.depth);
    const double windows = double(call->batch) * double(p.frames_out);
    p.threads = worth_sharing(windows * w.outputs * w.depth) ? nbit_pool_threads(call->pool) : 1;
    const bool few = p.threads > 1 && p.runs < int64_t(kRunsPerThread) * p.threads;
    p.stripe_outputs = !few ? w.outputs : p.groups > 1 ? p.group_outputs : kInterleave * kBlockColumns;
    p.stripes = int(ceil_div(w.outputs, p.stripe_outputs));
    Carver carver(nullptr);
    carve(carver, p);
    p.thread_bytes = carver.used();
    *plan = p;
    return NBIT_OK;
}

// The input frames [first, first + count) of one run, in coordinates that include the padding, and what of
// them is real.
struct Span {
    int64_t first;
    int count;
    int real_begin, real_end;  // within the span
};

Span span_of(const Plan& p, int64_t frame, int frames) {
    Span s;
    s.first = frame * p.stride - p.padding;
    s.count = (frames - 1) * p.stride + (p.taps - 1) * p.dilation + 1;
    const int64_t begin = s.first < 0 ? -s.first : 0;
    const int64_t end = p.frames_in - s.first;
    s.real_begin = int(begin < s.count ? begin : s.count);
    s.real_end = int(end < s.count ? end : s.count);
    if (s.real_end < s.real_begin) s.real_end = s.real_begin;
    return s;
}

// Frames of one channel for reading or (1) writing. The next channel's are too far away for a CPU to foresee.
template <int writing>
void prefetch_frames(const float* frames, int count) {
    constexpr int kLineFrames = kLineBytes / int(sizeof(float));
    for (int f = 0; f < count; f += kLineFrames) __builtin_prefetch(frames + f, writing);
}

// Returns the scale of the run.
float quantise_run(const nbit_conv1d_call& call, const Plan& p, const float* x, const Span& span,
                   Buffers& b) {
    const Kernels& k = *p.layer.kernels;
    const int channels = p.groups * p.group_channels;
    const int real = span.real_end - span.real_begin;
    const size_t group_bytes = size_t(span.count) * p.group_channels;
    const float* source = x + span.first + span.real_begin;
    float scale = call.x_scale, factor = 0.0f;
    if (call.x_scale == 0) {
        uint32_t largest = 0;
        for (int c = 0; c < channels; ++c) {
            if (c + 1 < channels) prefetch_frames<0>(source + (c + 1) * p.frames_in, real);
            const uint32_t m = k.magnitude(source + c * p.frames_in, size_t(real));
            largest = m > largest ? m : largest;
        }
        factor = dynamic_factor(largest, &scale);
    }
    std::memset(b.frames, call.x_zero, p.groups * group_bytes);
    if (real == 0 || (call.x_scale == 0 && factor == 0)) return scale;
    for (int g = 0; g < p.groups; ++g) {
        const Grid grid{source + int64_t(g) * p.group_channels * p.frames_in, ptrdiff_t(p.frames_in),
                        p.group_channels, real};
        int8_t* q = b.frames + g * group_bytes + size_t(span.real_begin) * p.group_channels;
        if (call.x_scale > 0) k.quantise_frames_calibrated(grid, scale, call.x_zero, q, p.group_channels);
        else k.quantise_frames(grid, factor, q, p.group_channels);
    }
    return scale;
}

// One window in the order of the codes, zeros behind it.
void gather_window(const Plan& p, const int8_t* window, int8_t* row) {
    const int channels = p.group_channels;
    const ptrdiff_t step = ptrdiff_t(p.dilation) * channels;
    for (int tap = 0; tap < p.taps; ++tap) {
        const int8_t* from = window + tap * step;
        if (p.tap_first) {
            std::memcpy(row + ptrdiff_t(tap) * channels, from, channels);
        } else {
            for (int c = 0; c < channels; ++c) row[ptrdiff_t(c) * p.taps + tap] = from[c];
        }
    }
    const int depth = p.layer.weight.depth;
    std::memset(row + depth, 0, size_t(p.row_bytes - depth));
}

// Offsets from sums of frames, which neighbouring windows share.
void offsets_by_frames(const Plan& p, const int8_t* group, const Span& span, int frames, Buffers& b) {
    const Kernels& k = *p.layer.kernels;
    const int32_t factor = offset_factor(p.layer);
    for (int f = 0; f < span.count; ++f) {
        const int8_t* frame = group + ptrdiff_t(f) * p.group_channels;
        b.frame_sums[f] = p.group_channels == 1 ? *frame : k.sum(frame, p.group_channels);
    }
    for (int r = 0; r < frames; ++r) {
        int32_t total = 0;
        for (int tap = 0; tap < p.taps; ++tap) total += b.frame_sums[r * p.stride + tap * p.dilation];
        b.offsets[r] = factor * total;
    }
}

void offsets_by_rows(const Layer& layer, const Rows& rows, int32_t* offsets) {
    const Weight& w = layer.weight;
    const int depth = w.group_blocks * kBlockDepth;
    for (int r = 0; r < rows.count; ++r) {
        layer.kernels->group_sums(rows.x + r * rows.stride, depth, w.groups, offset_factor(layer),
                                  offsets + r * w.groups);
    }
}

Rows windows(const Plan& p, int group, const Span& span, int frames, Buffers& b) {
    const int8_t* base = b.frames + size_t(group) * span.count * p.group_channels;
    const ptrdiff_t step = ptrdiff_t(p.stride) * p.group_channels;
    Rows rows{base, step, frames, b.scales, b.offsets};
    if (p.gather) {
        for (int r = 0; r < frames; ++r) gather_window(p, base + r * step, b.rows + r * p.row_bytes);
        rows.x = b.rows;
        rows.stride = p.row_bytes;
    }
    if (p.layer.weight.groups > 1) offsets_by_rows(p.layer, rows, b.offsets);
    else offsets_by_frames(p, base, span, frames, b);
    return rows;
}

// Outputs [first, end) of one group, panel by panel; `y` points at the run's first frame of output 0.
void run_outputs(const Plan& p, const Rows& rows, int first, int end, Buffers& b, float* y) {
    const int end_block = int(ceil_div(end, kBlockColumns));
    for (int block = first / kBlockColumns; block < end_block;) {
        const int blocks = panel_width(p.layer, rows.count, block, end_block);
        const int base = block * kBlockColumns, columns = blocks * kBlockColumns;
        const Output out{b.y, nullptr, columns, base};
        for (int n = base; n < base + columns && n < end; ++n) {
            if (n >= first) prefetch_frames<1>(y + n * p.frames_out, rows.count);
        }
        run_panel(p.layer, rows, block, blocks, base + columns, b.scratch, out);
        const int from = first > base ? first : base;
        const int to = end < base + columns ? end : base + columns;
        const Grid grid{b.y + (from - base), columns, rows.count, to - from};
        p.layer.kernels->transpose(grid, y + from * p.frames_out, ptrdiff_t(p.frames_out));
        block += blocks;
    }
}

struct Job {
    const nbit_conv1d_call* call;
    const Plan* plan;
};

// One run of frames, of one batch item.
class Run {
  public:
    Run(const nbit_conv1d_call& call, const Plan& plan, int64_t index, Buffers& buffers)
        : plan_(plan), buffers_(buffers) {
        const int64_t runs = plan.runs / call.batch, item = index / runs;
        const int64_t frame = index % runs * NBIT_CONV_FRAMES, left = plan.frames_out - frame;
        frames_ = int(left < NBIT_CONV_FRAMES ? left : NBIT_CONV_FRAMES);
        span_ = span_of(plan, frame, frames_);
        const float scale =
            quantise_run(call, plan, call.x + item * call.channels * call.frames, span_, buffers);
        for (int r = 0; r < frames_; ++r) buffers.scales[r] = scale;
        session_.emplace(plan.layer, frames_);
        y_ = call.y + item * plan.layer.weight.outputs * plan.frames_out + frame;
    }

    // Outputs [begin, end) of all.
    void multiply(int begin, int end) {
        while (begin < end) {
            const int group = begin / plan_.group_outputs, next = (group + 1) * plan_.group_outputs;
            const int stop = end < next ? end : next;
            run_outputs(plan_, windows(plan_, group, span_, frames_, buffers_), begin, stop, buffers_, y_);
            begin = stop;
        }
    }

  private:
    const Plan& plan_;
    Buffers& buffers_;
    int frames_;
    Span span_;
    float* y_;
    std::optional<MatrixSession> session_;
};

void run_thread(void* context, int thread, Pieces& pieces) {
    const Job& job = *static_cast<const Job*>(context);
    const Plan& p = *job.plan;
    Carver carver(static_cast<uint8_t*>(job.call->workspace) + p.thread_bytes * thread);
    Buffers buffers = carve(carver, p);
    correct_columns(p.layer, buffers.scratch);
    std::optional<Run> run;
    int64_t current = -1;
    for (Range range; pieces.next(&range);) {
        while (range.begin < range.end) {
            const int64_t index = range.begin / p.stripes, before = index * p.stripes;
            const int64_t stop = range.end < before + p.stripes ? range.end : before + p.stripes;
            if (index != current) run.emplace(*job.call, p, current = index, buffers);
            const int64_t end = (stop - before) * p.stripe_outputs;
            run->multiply(int(range.begin - before) * p.stripe_outputs,
                          int(end < p.layer.weight.outputs ? end : p.layer.weight.outputs));
            range.begin = stop;
        }
    }
}

}  // namespace
}  // namespace bitvox

using namespace bitvox;

extern "C" {

nbit_status nbit_conv1d_frames(const nbit_conv1d_call* call, int64_t* frames_out) {
    if (!frames_out) return NBIT_BAD_POINTER;
    Plan plan;
    const nbit_status status = prepare(call, &plan);
    if (status == NBIT_OK) *frames_out = plan.frames_out;
    return status;
}

nbit_status nbit_conv1d_workspace(const nbit_conv1d_call* call, size_t* bytes) {
    if (!bytes) return NBIT_BAD_POINTER;
    Plan plan;
    const nbit_status status = prepare(call, &plan);
    if (status == NBIT_OK) *bytes = plan.thread_bytes * plan.threads;
    return status;
}

nbit_status nbit_conv1d(const nbit_conv1d_call* call) {
    Plan plan;
    const nbit_status status = prepare(call, &plan);
    if (status != NBIT_OK) return status;
    if (!call->x || !call->y || !call->workspace) return NBIT_BAD_POINTER;
    if (reinterpret_cast<uintptr_t>(call->workspace) % NBIT_ALIGNMENT) return NBIT_BAD_POINTER;
    if (call->workspace_bytes < plan.thread_bytes * plan.threads) return NBIT_BAD_SIZE;
    Job job{call, &plan};
    run_pieces(plan.threads > 1 ? call->pool : nullptr, plan.runs * plan.stripes, run_thread, &job);
    return NBIT_OK;
}

}  // extern "C"
