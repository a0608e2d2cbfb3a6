// The operators for ExecuTorch: layers that compute on packed n-bit weights where the program keeps them.
//
// Loading this library registers them all. The schemas, and what each argument means, are in operators.py.
#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/core/exec_aten/util/tensor_util.h>
#include <executorch/runtime/kernel/kernel_includes.h>
#include <executorch/runtime/kernel/thread_parallel_interface.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "arguments.h"
#include "bitvox/nbit.h"
#include "memory.h"

namespace {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::aten::Tensor;
using executorch::runtime::Error;
using executorch::runtime::KernelRuntimeContext;

using bitvox::aligned_weight;
using bitvox::dense;
using bitvox::finish;
using bitvox::Floats;
using bitvox::is_constant;
using bitvox::kMaxDimensions;
using bitvox::read_activation;
using bitvox::refuse;
using bitvox::LentPool;
using bitvox::workspace;

// What a call needs beside its shapes; `error` is Ok where all of it is usable.
struct Arguments {
    Error error = Error::InvalidArgument;
    const void* weight = nullptr;
    size_t weight_bytes = 0;
    nbit_shape shape{};
    Floats bias;
    nbit_activation activation = NBIT_ACTIVATION_NONE;
    float x_scale = 0;
    int32_t x_zero = 0;
};

Arguments read_arguments(const char* name, const Tensor& x, const Tensor& weight,
                         const std::optional<Tensor>& bias, int64_t outputs, std::string_view activation,
                         double x_scale, int64_t x_zero, const Tensor& out) {
    Arguments a;
    if (!dense(x, ScalarType::Float) || !dense(out, ScalarType::Float) || !dense(weight, ScalarType::Byte)) {
        ET_LOG(Error, "%s: x and out must be dense float tensors, weight dense bytes", name);
        return a;
    }
    a.weight_bytes = weight.nbytes();
    a.weight = aligned_weight(weight.const_data_ptr(), a.weight_bytes);
    if (!a.weight) {
        a.error = Error::MemoryAllocationFailed;
        return a;
    }
    const nbit_status status = nbit_inspect(a.weight, a.weight_bytes, &a.shape);
    if (status != NBIT_OK) {
        a.error = refuse(name, status);
        return a;
    }
    if (a.shape.outputs != outputs) {
        ET_LOG(Error, "%s: the packed weight has %d outputs, the call says %lld", name, int(a.shape.outputs),
               static_cast<long long>(outputs));
        return a;
    }
    if (bias) {
        if (!is_constant(*bias, outputs)) {
            ET_LOG(Error, "%s: bias must hold %lld floats or halves", name, static_cast<long long>(outputs));
            return a;
        }
        a.bias = Floats(*bias);
    }
    if (!read_activation(name, activation, &a.activation)) return a;
    // Written so that NaN is refused too.
    if (!(x_scale >= 0 && x_scale < 3e38) || x_zero < -128 || x_zero > 127 || (x_scale == 0 && x_zero != 0)) {
        ET_LOG(Error, "%s: x_scale must be finite and not negative, x_zero -128..127 and 0 without x_scale",
               name);
        return a;
    }
    a.x_scale = float(x_scale);
    a.x_zero = int32_t(x_zero);
    a.error = Error::Ok;
    return a;
}

Error run_linear(const Tensor& x, const Arguments& a, Tensor& out) {
    const int dimensions = int(x.dim());
    if (dimensions < 1 || dimensions > kMaxDimensions || x.size(dimensions - 1) != a.shape.depth ||
        a.shape.taps != 1) {
        ET_LOG(Error, "bitvox::linear: x must end in the %d inputs of the packed weight", int(a.shape.depth));
        return Error::InvalidArgument;
    }
    SizesType sizes[kMaxDimensions];
    for (int i = 0; i < dimensions; ++i) sizes[i] = SizesType(x.size(i));
    sizes[dimensions - 1] = a.shape.outputs;
    const Error resized = executorch::runtime::resize_tensor(out, {sizes, size_t(dimensions)});
    if (resized != Error::Ok) return resized;

    nbit_linear_call call{};
    call.rows = int64_t(x.numel()) / a.shape.depth;
    if (call.rows == 0) return Error::Ok;
    call.weight = a.weight;
    call.weight_bytes = a.weight_bytes;
    call.x = x.const_data_ptr<float>();
    call.x_stride = a.shape.depth;
    call.x_scale = a.x_scale;
    call.x_zero = a.x_zero;
    call.bias = a.bias.data();
    call.activation = a.activation;
    call.y = out.mutable_data_ptr<float>();
    call.y_stride = a.shape.outputs;
    LentPool pool(int(executorch::extension::get_thread_count()));
    call.pool = pool.get();
    nbit_status status = nbit_linear_workspace(&call, &call.workspace_bytes);
    if (status != NBIT_OK) return refuse("bitvox::linear", status);
    call.workspace = workspace(call.workspace_bytes);
    if (!call.workspace) return Error::MemoryAllocationFailed;
    status = nbit_linear(&call);
    return status == NBIT_OK ? Error::Ok : refuse("bitvox::linear", status);
}

struct Geometry {
    int64_t taps, stride, padding, dilation, groups;

    // Also keeps the arithmetic of the kernels within 32 bits.
    bool valid() const {
        constexpr int64_t most = 1 << 20;
        return taps >= 1 && taps <= most && stride >= 1 && stride <= most && padding >= 0 &&
               padding <= most && dilation >= 1 && dilation <= most && groups >= 1 && groups <= most;
    }
};

Error run_conv1d(const Tensor& x, const Arguments& a, const Geometry& g, Tensor& out) {
    if (x.dim() != 3 || !g.valid() || a.shape.depth % g.taps != 0 || a.shape.outputs % g.groups != 0 ||
        x.size(1) != a.shape.depth / g.taps * g.groups) {
        ET_LOG(Error, "bitvox::conv1d: x must be [B, C, T] with the channels of the packed weight");
        return Error::InvalidArgument;
    }
    nbit_conv1d_call call{};
    call.weight = a.weight;
    call.weight_bytes = a.weight_bytes;
    call.x = x.const_data_ptr<float>();
    call.batch = x.size(0);
    call.channels = x.size(1);
    call.frames = x.size(2);
    call.stride = int32_t(g.stride);
    call.padding = int32_t(g.padding);
    call.dilation = int32_t(g.dilation);
    call.groups = int32_t(g.groups);
    call.x_scale = a.x_scale;
    call.x_zero = a.x_zero;
    call.bias = a.bias.data();
    call.activation = a.activation;
    int64_t frames = 0;
    nbit_status status = nbit_conv1d_frames(&call, &frames);
    if (status != NBIT_OK) return refuse("bitvox::conv1d", status);
    const SizesType sizes[] = {SizesType(call.batch), SizesType(a.shape.outputs), SizesType(frames)};
    const Error resized = executorch::runtime::resize_tensor(out, {sizes, 3});
    if (resized != Error::Ok) return resized;

    call.y = out.mutable_data_ptr<float>();
    LentPool pool(int(executorch::extension::get_thread_count()));
    call.pool = pool.get();
    status = nbit_conv1d_workspace(&call, &call.workspace_bytes);
    if (status != NBIT_OK) return refuse("bitvox::conv1d", status);
    call.workspace = workspace(call.workspace_bytes);
    if (!call.workspace) return Error::MemoryAllocationFailed;
    status = nbit_conv1d(&call);
    return status == NBIT_OK ? Error::Ok : refuse("bitvox::conv1d", status);
}

Tensor& linear_out(KernelRuntimeContext& context, const Tensor& x, const Tensor& weight,
                   std::optional<Tensor> bias, int64_t outputs, std::string_view activation, double x_scale,
                   int64_t x_zero, Tensor& out) {
    const Arguments a =
        read_arguments("bitvox::linear", x, weight, bias, outputs, activation, x_scale, x_zero, out);
    return finish(context, a.error == Error::Ok ? run_linear(x, a, out) : a.error, out);
}

Tensor& conv1d_out(KernelRuntimeContext& context, const Tensor& x, const Tensor& weight,
                   std::optional<Tensor> bias, int64_t outputs, int64_t taps, int64_t stride, int64_t padding,
                   int64_t dilation, int64_t groups, std::string_view activation, double x_scale,
                   int64_t x_zero, Tensor& out) {
    const Arguments a =
        read_arguments("bitvox::conv1d", x, weight, bias, outputs, activation, x_scale, x_zero, out);
    const Geometry geometry{taps, stride, padding, dilation, groups};
    return finish(context, a.error == Error::Ok ? run_conv1d(x, a, geometry, out) : a.error, out);
}

EXECUTORCH_LIBRARY(bitvox, "linear.out", linear_out);
EXECUTORCH_LIBRARY(bitvox, "conv1d.out", conv1d_out);

}  // namespace
