// Layers in float: a filter bank over the samples of a waveform, a norm over time, and norms over channels.
#include <cmath>

#include "dispatch.h"
#include "panel.h"
#include "pool.h"

namespace bitvox {
namespace {

// Frames of all channels that are made while their samples are in the nearest cache.
constexpr int64_t kFilteredFrames = 1024;

bool usable(nbit_activation activation) {
    return activation == NBIT_ACTIVATION_NONE || activation == NBIT_ACTIVATION_GELU;
}

struct NormJob {
    const nbit_instance_norm_call& call;
    const Kernels& kernels;
};

// One channel of one item stays in the nearest cache from the first pass to the last.
void normalise_channels(void* context, int, Pieces& pieces) {
    const NormJob& job = *static_cast<const NormJob*>(context);
    const nbit_instance_norm_call& c = job.call;
    const size_t frames = size_t(c.frames);
    for (Range rows; pieces.next(&rows);) {
        for (int64_t row = rows.begin; row < rows.end; ++row) {
            const int64_t channel = row % c.channels;
            float* y = c.y + row * c.frames;
            job.kernels.normalise(c.x + row * c.frames, y, frames, c.scale[channel], c.bias[channel], c.epsilon);
            if (c.activation == NBIT_ACTIVATION_GELU) job.kernels.gelu(y, frames);
        }
    }
}

struct RowsJob {
    const nbit_layer_norm_call& call;
    const Kernels& kernels;
};

void normalise_rows(void* context, int, Pieces& pieces) {
    const RowsJob& job = *static_cast<const RowsJob*>(context);
    const nbit_layer_norm_call& c = job.call;
    for (Range rows; pieces.next(&rows);) {
        for (int64_t row = rows.begin; row < rows.end; ++row) {
            const int64_t at = row * c.width;
            job.kernels.normalise_row(c.x + at, c.added ? c.added + at : nullptr, c.y + at, size_t(c.width),
                                      c.scale, c.bias, c.epsilon);
        }
    }
}

struct WaveJob {
    const nbit_wave_conv1d_call& call;
    const Kernels& kernels;
    int64_t frames_out;
};

nbit_status wave_shape(const nbit_wave_conv1d_call* c, int64_t* frames_out) {
    if (!c || !frames_out) return NBIT_BAD_POINTER;
    if (c->batch < 1 || c->outputs < 1 || c->taps < 1 || c->stride < 1 || c->frames < c->taps)
        return NBIT_BAD_SHAPE;
    *frames_out = (c->frames - c->taps) / c->stride + 1;
    return NBIT_OK;
}

// Samples of one phase of an item: those that the last output frame reads, and no more.
int64_t phase_samples(const nbit_wave_conv1d_call& c, int64_t frames_out) {
    return frames_out + (c.taps - 1) / c.stride;
}

Grid phases_of(const nbit_wave_conv1d_call& c, int64_t frames_out, int64_t item) {
    const int64_t samples = phase_samples(c, frames_out);
    const float* all = static_cast<const float*>(c.workspace);
    return {all + item * samples * c.stride, ptrdiff_t(samples), c.stride, int(samples)};
}

void deal_phases(const nbit_wave_conv1d_call& c, int64_t frames_out) {
    const int64_t samples = phase_samples(c, frames_out);
    for (int64_t item = 0; item < c.batch; ++item) {
        float* to = static_cast<float*>(c.workspace) + item * samples * c.stride;
        const float* x = c.x + item * c.frames;
        for (int phase = 0; phase < c.stride; ++phase) {
            for (int64_t i = 0; i < samples; ++i) {
                const int64_t at = i * c.stride + phase;
                to[phase * samples + i] = at < c.frames ? x[at] : 0.0f;
            }
        }
    }
}

// Some frames of all channels of an item.
void filter_piece(const WaveJob& job, int64_t item, int64_t begin) {
    const nbit_wave_conv1d_call& c = job.call;
    const int64_t left = job.frames_out - begin;
    const size_t count = size_t(left < kFilteredFrames ? left : kFilteredFrames);
    Grid phases = phases_of(c, job.frames_out, item);
    phases.data += begin;
    for (int64_t n = 0; n < c.outputs; ++n) {
        job.kernels.filter(phases, c.weight + n * c.taps, c.taps, c.bias ? c.bias[n] : 0.0f,
                           c.y + (item * c.outputs + n) * job.frames_out + begin, count);
    }
}

void filter_pieces(void* context, int, Pieces& pieces) {
    const WaveJob& job = *static_cast<const WaveJob*>(context);
    const int64_t per_item = ceil_div(job.frames_out, kFilteredFrames);
    for (Range range; pieces.next(&range);) {
        for (int64_t piece = range.begin; piece < range.end; ++piece)
            filter_piece(job, piece / per_item, piece % per_item * kFilteredFrames);
    }
}

}  // namespace
}  // namespace bitvox

using namespace bitvox;

extern "C" {

nbit_status nbit_instance_norm(const nbit_instance_norm_call* call) {
    if (!call || !call->x || !call->scale || !call->bias || !call->y) return NBIT_BAD_POINTER;
    if (call->batch < 1 || call->channels < 1 || call->frames < 1) return NBIT_BAD_SHAPE;
    if (!usable(call->activation) || !(call->epsilon >= 0)) return NBIT_BAD_OPTION;
    const Kernels* kernels = find_kernels(call->isa);
    if (!kernels) return NBIT_BAD_ISA;
    NormJob job{*call, *kernels};
    run_pieces(call->pool, call->batch * call->channels, normalise_channels, &job);
    return NBIT_OK;
}

nbit_status nbit_layer_norm(const nbit_layer_norm_call* call) {
    if (!call || !call->x || !call->scale || !call->bias || !call->y) return NBIT_BAD_POINTER;
    if (call->rows < 1 || call->width < 1) return NBIT_BAD_SHAPE;
    if (!(call->epsilon >= 0)) return NBIT_BAD_OPTION;
    const Kernels* kernels = find_kernels(call->isa);
    if (!kernels) return NBIT_BAD_ISA;
    RowsJob job{*call, *kernels};
    run_pieces(call->pool, call->rows, normalise_rows, &job);
    return NBIT_OK;
}

nbit_status nbit_wave_conv1d_frames(const nbit_wave_conv1d_call* call, int64_t* frames_out) {
    return wave_shape(call, frames_out);
}

nbit_status nbit_wave_conv1d_workspace(const nbit_wave_conv1d_call* call, size_t* bytes) {
    if (!bytes) return NBIT_BAD_POINTER;
    int64_t frames_out = 0;
    const nbit_status status = wave_shape(call, &frames_out);
    if (status == NBIT_OK) *bytes = size_t(call->batch * phase_samples(*call, frames_out) * call->stride) * 4;
    return status;
}

nbit_status nbit_wave_conv1d(const nbit_wave_conv1d_call* call) {
    size_t needed = 0;
    int64_t frames_out = 0;
    nbit_status status = nbit_wave_conv1d_workspace(call, &needed);
    if (status == NBIT_OK) status = wave_shape(call, &frames_out);
    if (status != NBIT_OK) return status;
    if (!call->x || !call->weight || !call->y || !call->workspace) return NBIT_BAD_POINTER;
    if (call->workspace_bytes < needed) return NBIT_BAD_SIZE;
    const Kernels* kernels = find_kernels(call->isa);
    if (!kernels) return NBIT_BAD_ISA;
    deal_phases(*call, frames_out);
    WaveJob job{*call, *kernels, frames_out};
    run_pieces(call->pool, call->batch * ceil_div(frames_out, kFilteredFrames), filter_pieces, &job);
    return NBIT_OK;
}

}  // extern "C"
