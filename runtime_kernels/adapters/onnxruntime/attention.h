// bitvox:Attention(q [B, M, C], k [B, T, C], v [B, T, C]) -> y [B, M, C], all float, C = heads * width
// bitvox:CachedAttention(q [B, M, C] float, k [B, heads, width, T] float16, v [B, heads, T, width] float16) -> y
//
// y = softmax(scale * q k^T) v, head by head. The first takes the outputs of three linears as they are; the second
// reads a cache that was written once for many steps, whose bytes are what a step waits for.
#pragma once

#include "ort.h"
#include "shapes.h"
#include "threads.h"

namespace bitvox_ort {

class AttentionLayer {
  public:
    static constexpr size_t kInputs = 3;
    static bool optional(size_t) { return false; }
    static void infer(const Inference& node);

  protected:
    // Attributes: heads, scale.
    AttentionLayer(const OrtApi& api, const OrtKernelInfo* info, Threads& threads, const char* op_type);
    // A call with the queries of a run, or a throw where q is no [B, M, C].
    nbit_attention_call start(const Tensor& q) const;
    [[noreturn]] void refuse(const Tensor& q, const Tensor& k, const Tensor& v) const;
    void run(nbit_attention_call& call, const Run& run, const Tensor& q) const;

  private:
    Threads& threads_;
    const Arena arena_;
    const std::string who_;
    int32_t heads_;
    float scale_;
};

class Attention : public AttentionLayer {
  public:
    static constexpr const char* kName = "Attention";
    static ONNXTensorElementDataType input_type(size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; }
    Attention(const OrtApi& api, const OrtKernelInfo* info, Threads& threads)
        : AttentionLayer(api, info, threads, kName) {}
    void compute(const Run& run) const;
};

class CachedAttention : public AttentionLayer {
  public:
    static constexpr const char* kName = "CachedAttention";
    static ONNXTensorElementDataType input_type(size_t index) {
        return index == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    }
    CachedAttention(const OrtApi& api, const OrtKernelInfo* info, Threads& threads)
        : AttentionLayer(api, info, threads, kName) {}
    void compute(const Run& run) const;
};

}  // namespace bitvox_ort
