// bitvox:NBitLookup(tokens [...] int64, weight [bytes] uint8) -> [..., K] float
//
// Rows of the weight that an NBitLinear of the same graph multiplies with: one copy of it serves both.
#pragma once

#include <string>

#include "ort.h"
#include "shapes.h"
#include "threads.h"
#include "weight.h"

namespace bitvox_ort {

class NBitLookup {
  public:
    static constexpr const char* kName = "NBitLookup";
    static constexpr size_t kInputs = 2;
    static bool optional(size_t) { return false; }
    static ONNXTensorElementDataType input_type(size_t index) {
        return index == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 : ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    }

    // Attributes: N rows of K weights.
    NBitLookup(const OrtApi& api, const OrtKernelInfo* info, Threads&);
    void compute(const Run& run) const;
    static void infer(const Inference& node);

  private:
    const std::string who_;
    const Weight weight_;
};

}  // namespace bitvox_ort
