// Arguments of the operators, checked and read: what a program holds is data from outside.
#ifndef BITVOX_ADAPTERS_EXECUTORCH_ARGUMENTS_H
#define BITVOX_ADAPTERS_EXECUTORCH_ARGUMENTS_H

#include <executorch/runtime/core/exec_aten/exec_aten.h>
#include <executorch/runtime/core/error.h>
#include <executorch/runtime/kernel/kernel_runtime_context.h>

#include <cstdint>
#include <memory>
#include <string_view>

#include "bitvox/nbit.h"

namespace bitvox {

// Of a tensor that an operator takes or gives.
constexpr int kMaxDimensions = 8;

bool dense(const executorch::aten::Tensor& tensor, executorch::aten::ScalarType type);

// Whether a tensor holds so many dense floats or halves.
bool is_constant(const executorch::aten::Tensor& tensor, int64_t count);

// The values of such a tensor as floats: its own, or those that its halves stand for.
class Floats {
  public:
    Floats() = default;
    explicit Floats(const executorch::aten::Tensor& tensor);
    const float* data() const { return data_; }

  private:
    std::unique_ptr<float[]> widened_;
    const float* data_ = nullptr;
};

// Logs what the status means.
executorch::runtime::Error refuse(const char* name, nbit_status status);

// What an operator returns: its output, once the program knows how the call went.
inline executorch::aten::Tensor& finish(executorch::runtime::KernelRuntimeContext& context,
                                        executorch::runtime::Error error, executorch::aten::Tensor& out) {
    if (error != executorch::runtime::Error::Ok) context.fail(error);
    return out;
}

bool read_activation(const char* name, std::string_view activation, nbit_activation* found);

}  // namespace bitvox

#endif
