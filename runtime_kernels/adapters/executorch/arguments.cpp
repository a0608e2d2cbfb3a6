#include "arguments.h"

#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/platform/log.h>

namespace bitvox {

using executorch::aten::Half;
using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::runtime::Error;

bool dense(const Tensor& tensor, ScalarType type) {
    return tensor.scalar_type() == type && executorch::runtime::tensor_is_default_dim_order(tensor);
}

bool is_constant(const Tensor& tensor, int64_t count) {
    return (dense(tensor, ScalarType::Float) || dense(tensor, ScalarType::Half)) &&
           int64_t(tensor.numel()) == count;
}

Floats::Floats(const Tensor& tensor) {
    if (tensor.scalar_type() == ScalarType::Float) {
        data_ = tensor.const_data_ptr<float>();
        return;
    }
    const Half* halves = tensor.const_data_ptr<Half>();
    const size_t count = size_t(tensor.numel());
    widened_.reset(new float[count]);
    for (size_t i = 0; i < count; ++i) widened_[i] = float(halves[i]);
    data_ = widened_.get();
}

Error refuse(const char* name, nbit_status status) {
    ET_LOG(Error, "%s: %s", name, nbit_status_text(status));
    return Error::InvalidArgument;
}

bool read_activation(const char* name, std::string_view activation, nbit_activation* found) {
    if (activation == "none") *found = NBIT_ACTIVATION_NONE;
    else if (activation == "gelu") *found = NBIT_ACTIVATION_GELU;
    else {
        ET_LOG(Error, "%s: activation is neither none nor gelu", name);
        return false;
    }
    return true;
}

}  // namespace bitvox
