#include "nbit_lookup.h"

namespace bitvox_ort {

NBitLookup::NBitLookup(const OrtApi& api, const OrtKernelInfo* info, Threads&)
    : who_(std::string("bitvox:") + kName + " with weight '" + NodeInfo(api, info).input_name(1) + "'"),
      weight_(NodeInfo(api, info).constant_input(1), NodeInfo(api, info).integer("N"), who_) {
    if (weight_.shape().depth != NodeInfo(api, info).integer("K"))
        throw Error(ORT_INVALID_ARGUMENT, who_ + ": has rows of " + std::to_string(weight_.shape().depth) +
                                              " weights, its node says another number");
}

void NBitLookup::compute(const Run& run) const {
    const Tensor tokens = run.input(0);
    std::vector<int64_t> extents = tokens.shape;
    extents.push_back(weight_.shape().depth);
    float* y = run.output(extents);
    const auto* rows = static_cast<const int64_t*>(tokens.data);
    require(nbit_lookup(weight_.data(), weight_.bytes(), rows, tokens.count(), y), who_);
}

void NBitLookup::infer(const Inference& node) {
    InferredShape shape = node.x();
    shape.extents.push_back(node.integer("K"));
    shape.symbols.emplace_back();
    node.set_output(shape);
}

}  // namespace bitvox_ort
