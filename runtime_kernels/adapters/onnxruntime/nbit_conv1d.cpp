#include "nbit_conv1d.h"

namespace bitvox_ort {

NBitConv1d::NBitConv1d(const OrtApi& api, const OrtKernelInfo* info, Threads& threads)
    : Layer(api, info, threads, kName) {
    const NodeInfo node(api, info);
    stride_ = node.integer("stride");
    padding_ = node.integer("padding");
    dilation_ = node.integer("dilation");
    groups_ = node.integer("groups");
    if (stride_ < 1 || padding_ < 0 || dilation_ < 1) refuse("stride, padding or dilation out of range");
    if (groups_ < 1 || weight_.shape().outputs % groups_) refuse("groups must divide the outputs");
}

void NBitConv1d::compute(const Run& run) const {
    const Tensor x = run.input(0);
    const nbit_shape& shape = weight_.shape();
    const int64_t channels = int64_t(shape.depth) / shape.taps * groups_;
    if (x.shape.size() != 3 || x.shape[1] != channels)
        refuse("x of shape " + shape_text(x.shape) + "; [batch, " + std::to_string(channels) +
               ", frames] is needed");
    const int64_t reach = int64_t(shape.taps - 1) * dilation_ + 1;
    if (x.shape[2] + 2 * int64_t(padding_) < reach)
        refuse("x of " + std::to_string(x.shape[2]) + " frames; the kernel reaches over " +
               std::to_string(reach));
    if (x.shape[0] == 0) {
        run.output({0, shape.outputs, 0});
        return;
    }
    nbit_conv1d_call call{};
    call.weight = weight_.data();
    call.weight_bytes = weight_.bytes();
    call.x = x.floats();
    call.batch = x.shape[0];
    call.channels = x.shape[1];
    call.frames = x.shape[2];
    call.stride = stride_;
    call.padding = padding_;
    call.dilation = dilation_;
    call.groups = groups_;
    call.x_scale = x_scale_;
    call.x_zero = x_zero_;
    call.bias = bias(run);
    call.activation = activation_;
    int64_t frames = 0;
    require(nbit_conv1d_frames(&call, &frames), who_);
    call.y = run.output({call.batch, shape.outputs, frames});
    const Threads::Loan loan(threads_);
    call.pool = loan.pool();
    require(nbit_conv1d_workspace(&call, &call.workspace_bytes), who_);
    const Workspace workspace(arena_, call.workspace_bytes);
    call.workspace = workspace.data();
    require(nbit_conv1d(&call), who_);
}

void NBitConv1d::infer(const Inference& node) {
    InferredShape shape = node.x();
    if (shape.extents.size() != 3) return;
    shape.extents[1] = node.integer("N");
    shape.extents[2] = -1;  // the taps are known to the weight alone
    shape.symbols[1].clear();
    shape.symbols[2].clear();
    node.set_output(shape);
}

}  // namespace bitvox_ort
