// bitvox::lookup: rows of a packed weight as floats, where the weight is also the table of an embedding.
#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/kernel/kernel_includes.h>

#include <cstdint>

#include "arguments.h"
#include "bitvox/nbit.h"
#include "memory.h"

namespace {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::Tensor;
using executorch::runtime::Error;
using executorch::runtime::KernelRuntimeContext;

Error run_lookup(const Tensor& tokens, const Tensor& weight, int64_t width, Tensor& out) {
    const int dimensions = int(tokens.dim());
    if (!bitvox::dense(tokens, ScalarType::Long) || !bitvox::dense(weight, ScalarType::Byte) ||
        !bitvox::dense(out, ScalarType::Float) || dimensions >= bitvox::kMaxDimensions) {
        ET_LOG(Error, "bitvox::lookup: tokens must be dense int64, weight dense bytes, out dense floats");
        return Error::InvalidArgument;
    }
    const void* packed = bitvox::aligned_weight(weight.const_data_ptr(), weight.nbytes());
    if (!packed) return Error::MemoryAllocationFailed;
    nbit_shape shape{};
    nbit_status status = nbit_inspect(packed, weight.nbytes(), &shape);
    if (status == NBIT_OK && shape.depth != width) {
        ET_LOG(Error, "bitvox::lookup: rows of the packed weight have %d numbers, the call says %lld",
               int(shape.depth), static_cast<long long>(width));
        return Error::InvalidArgument;
    }
    if (status == NBIT_OK) {
        SizesType sizes[bitvox::kMaxDimensions];
        for (int i = 0; i < dimensions; ++i) sizes[i] = SizesType(tokens.size(i));
        sizes[dimensions] = SizesType(width);
        const Error resized = executorch::runtime::resize_tensor(out, {sizes, size_t(dimensions) + 1});
        if (resized != Error::Ok) return resized;
        status = nbit_lookup(packed, weight.nbytes(), tokens.const_data_ptr<int64_t>(), int64_t(tokens.numel()),
                             out.mutable_data_ptr<float>());
    }
    return status == NBIT_OK ? Error::Ok : bitvox::refuse("bitvox::lookup", status);
}

Tensor& lookup_out(KernelRuntimeContext& context, const Tensor& tokens, const Tensor& weight, int64_t width,
                   Tensor& out) {
    return bitvox::finish(context, run_lookup(tokens, weight, width, out), out);
}

EXECUTORCH_LIBRARY(bitvox, "lookup.out", lookup_out);

}  // namespace
