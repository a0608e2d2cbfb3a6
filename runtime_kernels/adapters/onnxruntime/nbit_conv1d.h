// bitvox:NBitConv1d(x [B, C, T] float, weight [bytes] uint8, bias [N] float, optional) -> [B, N, T'] float
#pragma once

#include "layer.h"
#include "shapes.h"

namespace bitvox_ort {

class NBitConv1d : public Layer {
  public:
    static constexpr const char* kName = "NBitConv1d";

    // Attributes beside those of a layer: stride, padding (both sides), dilation, groups.
    NBitConv1d(const OrtApi& api, const OrtKernelInfo* info, Threads& threads);
    void compute(const Run& run) const;
    static void infer(const Inference& node);

  private:
    int32_t stride_, padding_, dilation_, groups_;
};

}  // namespace bitvox_ort
