#include "attention.h"

#include "layer.h"

namespace bitvox_ort {

AttentionLayer::AttentionLayer(const OrtApi& api, const OrtKernelInfo* info, Threads& threads,
                               const char* op_type)
    : threads_(threads), arena_(api, info), who_(std::string("bitvox:") + op_type) {
    const NodeInfo node(api, info);
    heads_ = node.integer("heads");
    scale_ = node.number("scale");
    if (heads_ < 1 || !(scale_ > 0)) throw Error(ORT_INVALID_ARGUMENT, who_ + ": heads and scale must be above 0");
}

nbit_attention_call AttentionLayer::start(const Tensor& q) const {
    if (q.shape.size() != 3 || q.shape[2] % heads_ != 0)
        throw Error(ORT_INVALID_ARGUMENT, who_ + ": q of shape " + shape_text(q.shape) + " for " +
                                              std::to_string(heads_) + " heads");
    nbit_attention_call call{};
    call.batch = q.shape[0];
    call.queries = q.shape[1];
    call.heads = heads_;
    call.width = int32_t(q.shape[2] / heads_);
    call.q = {q.data, q.shape[1] * q.shape[2], call.width, q.shape[2]};
    call.scale = scale_;
    return call;
}

void AttentionLayer::refuse(const Tensor& q, const Tensor& k, const Tensor& v) const {
    throw Error(ORT_INVALID_ARGUMENT, who_ + ": q, k and v of shapes " + shape_text(q.shape) + ", " +
                                          shape_text(k.shape) + " and " + shape_text(v.shape));
}

void AttentionLayer::run(nbit_attention_call& call, const Run& run, const Tensor& q) const {
    call.y = run.output(q.shape);
    if (q.count() == 0) return;
    const Threads::Loan loan(threads_);
    call.pool = loan.pool();
    require(nbit_attention_workspace(&call, &call.workspace_bytes), who_);
    const Workspace workspace(arena_, call.workspace_bytes);
    call.workspace = workspace.data();
    require(nbit_attention(&call), who_);
}

void AttentionLayer::infer(const Inference& node) {
    const InferredShape shape = node.x();
    if (!shape.extents.empty()) node.set_output(shape);
}

void Attention::compute(const Run& given) const {
    const Tensor q = given.input(0), k = given.input(1), v = given.input(2);
    nbit_attention_call call = start(q);
    if (k.shape.size() != 3 || k.shape != v.shape || k.shape[0] != q.shape[0] || k.shape[2] != q.shape[2])
        refuse(q, k, v);
    call.keys = k.shape[1];
    const int64_t item = k.shape[1] * k.shape[2];
    call.k = {k.data, item, call.width, k.shape[2]};
    call.v = {v.data, item, call.width, k.shape[2]};
    run(call, given, q);
}

void CachedAttention::compute(const Run& given) const {
    const Tensor q = given.input(0), k = given.input(1), v = given.input(2);
    nbit_attention_call call = start(q);
    const std::vector<int64_t> keys = {call.batch, call.heads, call.width, k.count() ? k.shape.back() : 0};
    const std::vector<int64_t> values = {call.batch, call.heads, keys[3], call.width};
    if (k.shape != keys || v.shape != values) refuse(q, k, v);
    call.keys = keys[3];
    call.keys_across = call.halves = 1;
    const int64_t head = call.keys * call.width, item = head * call.heads;
    call.k = {k.data, item, head, call.keys};
    call.v = {v.data, item, head, call.width};
    run(call, given, q);
}

}  // namespace bitvox_ort
