#include "nbit_linear.h"

namespace bitvox_ort {

NBitLinear::NBitLinear(const OrtApi& api, const OrtKernelInfo* info, Threads& threads)
    : Layer(api, info, threads, kName) {
    if (weight_.shape().taps != 1) refuse("the weight was packed for a convolution");
}

void NBitLinear::compute(const Run& run) const {
    const Tensor x = run.input(0);
    const nbit_shape& shape = weight_.shape();
    if (x.shape.empty() || x.shape.back() != shape.depth)
        refuse("x of shape " + shape_text(x.shape) + "; [..., " + std::to_string(shape.depth) +
               "] is needed");
    std::vector<int64_t> extents = x.shape;
    extents.back() = shape.outputs;
    nbit_linear_call call{};
    call.y = run.output(extents);
    call.rows = x.count() / shape.depth;
    if (call.rows == 0) return;
    call.weight = weight_.data();
    call.weight_bytes = weight_.bytes();
    call.x = x.floats();
    call.x_stride = shape.depth;
    call.y_stride = shape.outputs;
    call.x_scale = x_scale_;
    call.x_zero = x_zero_;
    call.bias = bias(run);
    call.activation = activation_;
    const Threads::Loan loan(threads_);
    call.pool = loan.pool();
    require(nbit_linear_workspace(&call, &call.workspace_bytes), who_);
    const Workspace workspace(arena_, call.workspace_bytes);
    call.workspace = workspace.data();
    require(nbit_linear(&call), who_);
}

void NBitLinear::infer(const Inference& node) {
    InferredShape shape = node.x();
    if (shape.extents.empty()) return;
    shape.extents.back() = node.integer("N");
    shape.symbols.back().clear();
    node.set_output(shape);
}

}  // namespace bitvox_ort
