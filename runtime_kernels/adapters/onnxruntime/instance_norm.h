// bitvox:InstanceNorm1d(x [B, C, T] float, scale [C] float, bias [C] float) -> y [B, C, T] float
//
// The first norm of a wav2vec2-base extractor, with the GELU behind it: as the runtime's own operators it is
// four passes over the largest tensor of the network, and once the convolutions are fast, a quarter of the time.
#pragma once

#include "ort.h"
#include "shapes.h"
#include "threads.h"

namespace bitvox_ort {

class InstanceNorm1d {
  public:
    static constexpr const char* kName = "InstanceNorm1d";
    static constexpr size_t kInputs = 3;
    static bool optional(size_t) { return false; }
    static ONNXTensorElementDataType input_type(size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }

    // Attributes: epsilon, activation ("none" or "gelu").
    InstanceNorm1d(const OrtApi& api, const OrtKernelInfo* info, Threads& threads);
    void compute(const Run& run) const;
    static void infer(const Inference& node);

  private:
    Threads& threads_;
    float epsilon_;
    nbit_activation activation_;
};

}  // namespace bitvox_ort
