#include "instance_norm.h"

#include "layer.h"

namespace bitvox_ort {

InstanceNorm1d::InstanceNorm1d(const OrtApi& api, const OrtKernelInfo* info, Threads& threads)
    : threads_(threads) {
    const NodeInfo node(api, info);
    epsilon_ = node.number("epsilon");
    activation_ = read_activation(node.text("activation"), std::string("bitvox:") + kName);
}

void InstanceNorm1d::compute(const Run& run) const {
    const Tensor x = run.input(0), scale = run.input(1), bias = run.input(2);
    if (x.shape.size() != 3 || scale.count() != x.shape[1] || bias.count() != x.shape[1])
        throw Error(ORT_INVALID_ARGUMENT, std::string("bitvox:") + kName + ": x of shape " +
                                              shape_text(x.shape) + " with " +
                                              std::to_string(scale.count()) + " scales and " +
                                              std::to_string(bias.count()) + " biases");
    nbit_instance_norm_call call{};
    call.y = run.output(x.shape);
    if (x.count() == 0) return;
    call.x = x.floats();
    call.batch = x.shape[0];
    call.channels = x.shape[1];
    call.frames = x.shape[2];
    call.scale = scale.floats();
    call.bias = bias.floats();
    call.epsilon = epsilon_;
    call.activation = activation_;
    const Threads::Loan loan(threads_);
    call.pool = loan.pool();
    require(nbit_instance_norm(&call), kName);
}

void InstanceNorm1d::infer(const Inference& node) {
    const InferredShape shape = node.x();
    if (!shape.extents.empty()) node.set_output(shape);
}

}  // namespace bitvox_ort
