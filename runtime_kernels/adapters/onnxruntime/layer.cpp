#include "layer.h"

#include <cmath>

namespace bitvox_ort {
namespace {

std::string describe(const NodeInfo& node, const char* op_type) {
    return std::string("bitvox:") + op_type + " with weight '" + node.input_name(1) + "'";
}

// A whole number kept as a float, whose size in a file does not depend on its value.
int32_t read_zero(float value, const std::string& who) {
    if (value >= -128 && value <= 127 && value == std::floor(value)) return int32_t(value);
    throw Error(ORT_INVALID_ARGUMENT, who + ": x_zero must be a whole number, -128 to 127");
}

}  // namespace

Layer::Layer(const OrtApi& api, const OrtKernelInfo* info, Threads& threads, const char* op_type)
    : api_(api),
      threads_(threads),
      arena_(api, info),
      who_(describe(NodeInfo(api, info), op_type)),
      weight_(NodeInfo(api, info).constant_input(1), NodeInfo(api, info).integer("N"), who_),
      x_scale_(NodeInfo(api, info).number("x_scale")),
      x_zero_(read_zero(NodeInfo(api, info).number("x_zero"), who_)),
      activation_(read_activation(NodeInfo(api, info).text("activation"), who_)) {
    if (!(x_scale_ >= 0) || std::isinf(x_scale_)) refuse("x_scale must be 0 or a finite positive number");
    if (x_scale_ == 0 && x_zero_ != 0) refuse("x_zero must be 0 where x_scale is 0");
    if (!nbit_default_isa()) refuse("the environment variable BITVOX_ISA names no path of this CPU");
}

const float* Layer::bias(const Run& run) const {
    const Tensor values = run.input(2);
    if (!values.data) return nullptr;
    if (values.shape.size() != 1 || values.count() != weight_.shape().outputs)
        refuse("bias of shape " + shape_text(values.shape) + "; [" +
               std::to_string(weight_.shape().outputs) + "] is needed");
    return values.floats();
}

void Layer::refuse(const std::string& what) const {
    throw Error(ORT_INVALID_ARGUMENT, who_ + ": " + what);
}

nbit_activation read_activation(const std::string& name, const std::string& who) {
    if (name == "none") return NBIT_ACTIVATION_NONE;
    if (name == "gelu") return NBIT_ACTIVATION_GELU;
    throw Error(ORT_INVALID_ARGUMENT, who + ": activation '" + name + "'; use none or gelu");
}

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

}  // namespace bitvox_ort
