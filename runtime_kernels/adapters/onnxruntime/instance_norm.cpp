#include "instance_norm.h"

#include <cmath>

#include "dispatch.h"
#include "layer.h"

namespace bitvox_ort {
namespace {

constexpr int kLanes = 32;  // independent sums: vectors of any width, and short chains of roundings

// Sum of term(x[i]) over all i.
template <class Term>
double total(const float* x, int64_t count, Term term) {
    float lanes[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(x[i + lane]);
    }
    double sum = 0;
    for (; i < count; ++i) sum += term(x[i]);
    for (const float lane : lanes) sum += lane;
    return sum;
}

struct Job {
    const float *x, *scale, *bias;
    float* y;
    int64_t channels, frames;
    float epsilon;
    void (*gelu)(float* y, size_t count);  // or null
};

// One channel of one item: it stays in the nearest cache from the first pass to the last.
void normalise(void* context, size_t index) {
    const Job& job = *static_cast<const Job*>(context);
    const float* x = job.x + int64_t(index) * job.frames;
    float* y = job.y + int64_t(index) * job.frames;
    const size_t channel = index % size_t(job.channels);
    const double count = double(job.frames);
    const float mean = float(total(x, job.frames, [](float v) { return v; }) / count);
    // What the first sum's roundings left in the mean: it matters where that is far above the deviation.
    const float left = float(total(x, job.frames, [mean](float v) { return v - mean; }) / count);
    const double square = total(x, job.frames, [mean](float v) { return (v - mean) * (v - mean); });
    const float variance = float(square / count) - left * left;
    const float factor = job.scale[channel] / std::sqrt(variance + job.epsilon);
    const float bias = job.bias[channel] - left * factor;
    for (int64_t i = 0; i < job.frames; ++i) y[i] = (x[i] - mean) * factor + bias;
    if (job.gelu) job.gelu(y, size_t(job.frames));
}

}  // namespace

InstanceNorm1d::InstanceNorm1d(const OrtApi& api, const OrtKernelInfo* info, Threads&) {
    const NodeInfo node(api, info);
    epsilon_ = node.number("epsilon");
    gelu_ = read_activation(node.text("activation"), std::string("bitvox:") + kName) == NBIT_ACTIVATION_GELU;
}

void InstanceNorm1d::compute(const Run& run) const {
    const Tensor x = run.input(0), scale = run.input(1), bias = run.input(2);
    if (x.shape.size() != 3 || scale.count() != x.shape[1] || bias.count() != x.shape[1])
        throw Error(ORT_INVALID_ARGUMENT, std::string("bitvox:") + kName + ": x of shape " +
                                              shape_text(x.shape) + " with " +
                                              std::to_string(scale.count()) + " scales and " +
                                              std::to_string(bias.count()) + " biases");
    const bitvox::Kernels* kernels = bitvox::find_kernels(nullptr);
    if (!kernels) require(NBIT_BAD_ISA, kName);
    Job job{x.floats(),  scale.floats(), bias.floats(), run.output(x.shape),
            x.shape[1],  x.shape[2],     epsilon_,      gelu_ ? kernels->gelu : nullptr};
    if (x.count() > 0) run.parallel(normalise, size_t(x.shape[0] * x.shape[1]), &job);
}

void InstanceNorm1d::infer(const Inference& node) {
    const InferredShape shape = node.x();
    if (!shape.extents.empty()) node.set_output(shape);
}

}  // namespace bitvox_ort
