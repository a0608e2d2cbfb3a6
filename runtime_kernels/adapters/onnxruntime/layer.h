// What both operators share: the weight, the quantiser of the activations, and the function after the sum.
#pragma once

#include <string>
#include <vector>

#include "ort.h"
#include "threads.h"
#include "weight.h"

namespace bitvox_ort {

class Layer {
  public:
    static constexpr size_t kInputs = 3;
    static bool optional(size_t index) { return index == 2; }
    static ONNXTensorElementDataType input_type(size_t index) {
        return index == 1 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    }

    // Attributes: N, x_scale (0: ranged at run time), x_zero, activation ("none" or
    // "gelu").
    Layer(const OrtApi& api, const OrtKernelInfo* info, Threads& threads, const char* op_type);

  protected:
    // The bias of a run, or null.
    const float* bias(const Run& run) const;
    [[noreturn]] void refuse(const std::string& what) const;

    const OrtApi& api_;
    Threads& threads_;
    const Arena arena_;
    const std::string who_;  // operator and weight, as messages name them
    const Weight weight_;
    float x_scale_;
    int32_t x_zero_;
    nbit_activation activation_;
};

// The function that an attribute names; throws "WHO: …" for an unknown one.
nbit_activation read_activation(const std::string& name, const std::string& who);

// As text, for messages: [1, 49, 768].
std::string shape_text(const std::vector<int64_t>& shape);

}  // namespace bitvox_ort
