// bitvox:NBitLinear(x [..., K] float, weight [bytes] uint8, bias [N] float, optional) -> [..., N] float
#pragma once

#include "layer.h"
#include "shapes.h"

namespace bitvox_ort {

class NBitLinear : public Layer {
  public:
    static constexpr const char* kName = "NBitLinear";

    NBitLinear(const OrtApi& api, const OrtKernelInfo* info, Threads& threads);
    void compute(const Run& run) const;
    static void infer(const Inference& node);
};

}  // namespace bitvox_ort
