// Layers in float for ExecuTorch that would take longer than those on packed weights: those over a waveform,
// norms and attention. Constants of theirs may be halves, which saves bytes where a checkpoint has no more.
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

using bitvox::dense;
using bitvox::finish;
using bitvox::Floats;
using bitvox::is_constant;
using bitvox::LentPool;
using bitvox::read_activation;
using bitvox::refuse;
using bitvox::workspace;

Error run_wave_conv1d(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, int64_t stride,
                      Tensor& out) {
    if (!dense(x, ScalarType::Float) || !dense(out, ScalarType::Float) || x.dim() != 3 ||
        weight.dim() != 3 || x.size(1) != 1 || weight.size(1) != 1 || stride < 1 || stride > weight.size(2) ||
        !is_constant(weight, weight.numel()) || (bias && !is_constant(*bias, weight.size(0)))) {
        ET_LOG(Error, "bitvox::wave_conv1d: x must be [B, 1, T], weight [N, 1, taps]");
        return Error::InvalidArgument;
    }
    const Floats taps(weight), shifts = bias ? Floats(*bias) : Floats();
    nbit_wave_conv1d_call call{};
    call.x = x.const_data_ptr<float>();
    call.batch = x.size(0);
    call.frames = x.size(2);
    call.weight = taps.data();
    call.outputs = int32_t(weight.size(0));
    call.taps = int32_t(weight.size(2));
    call.stride = int32_t(stride);
    call.bias = shifts.data();
    int64_t frames = 0;
    nbit_status status = nbit_wave_conv1d_frames(&call, &frames);
    if (status != NBIT_OK) return refuse("bitvox::wave_conv1d", status);
    const SizesType sizes[] = {SizesType(call.batch), SizesType(call.outputs), SizesType(frames)};
    const Error resized = executorch::runtime::resize_tensor(out, {sizes, 3});
    if (resized != Error::Ok) return resized;
    call.y = out.mutable_data_ptr<float>();
    LentPool pool(int(executorch::extension::get_thread_count()));
    call.pool = pool.get();
    status = nbit_wave_conv1d_workspace(&call, &call.workspace_bytes);
    if (status != NBIT_OK) return refuse("bitvox::wave_conv1d", status);
    call.workspace = workspace(call.workspace_bytes);
    if (!call.workspace) return Error::MemoryAllocationFailed;
    status = nbit_wave_conv1d(&call);
    return status == NBIT_OK ? Error::Ok : refuse("bitvox::wave_conv1d", status);
}

Error run_instance_norm(const Tensor& x, const Tensor& scale, const Tensor& bias, double epsilon,
                        std::string_view activation, Tensor& out) {
    nbit_instance_norm_call call{};
    if (!read_activation("bitvox::instance_norm", activation, &call.activation)) return Error::InvalidArgument;
    if (!dense(x, ScalarType::Float) || !dense(out, ScalarType::Float) || x.dim() != 3 ||
        !is_constant(scale, x.size(1)) || !is_constant(bias, x.size(1))) {
        ET_LOG(Error, "bitvox::instance_norm: x must be [B, C, T], scale and bias [C]");
        return Error::InvalidArgument;
    }
    const Error resized = executorch::runtime::resize_tensor(out, x.sizes());
    if (resized != Error::Ok) return resized;
    const Floats factors(scale), shifts(bias);
    call.x = x.const_data_ptr<float>();
    call.batch = x.size(0);
    call.channels = x.size(1);
    call.frames = x.size(2);
    call.scale = factors.data();
    call.bias = shifts.data();
    call.epsilon = float(epsilon);
    call.y = out.mutable_data_ptr<float>();
    LentPool pool(int(executorch::extension::get_thread_count()));
    call.pool = pool.get();
    const nbit_status status = nbit_instance_norm(&call);
    return status == NBIT_OK ? Error::Ok : refuse("bitvox::instance_norm", status);
}

Error run_layer_norm(const Tensor& x, const std::optional<Tensor>& added, const Tensor& scale,
                     const Tensor& bias, double epsilon, Tensor& out) {
    const int64_t width = x.dim() ? x.size(x.dim() - 1) : 0;
    if (!dense(x, ScalarType::Float) || !dense(out, ScalarType::Float) || width < 1 ||
        (added && (!dense(*added, ScalarType::Float) || added->numel() != x.numel())) ||
        !is_constant(scale, width) || !is_constant(bias, width)) {
        ET_LOG(Error, "bitvox::layer_norm: x and what is added must be [..., C], scale and bias [C]");
        return Error::InvalidArgument;
    }
    const Error resized = executorch::runtime::resize_tensor(out, x.sizes());
    if (resized != Error::Ok) return resized;
    const Floats factors(scale), shifts(bias);
    nbit_layer_norm_call call{};
    call.x = x.const_data_ptr<float>();
    call.added = added ? added->const_data_ptr<float>() : nullptr;
    call.rows = int64_t(x.numel()) / width;
    call.width = int32_t(width);
    call.scale = factors.data();
    call.bias = shifts.data();
    call.epsilon = float(epsilon);
    call.y = out.mutable_data_ptr<float>();
    LentPool pool(int(executorch::extension::get_thread_count()));
    call.pool = pool.get();
    const nbit_status status = nbit_layer_norm(&call);
    return status == NBIT_OK ? Error::Ok : refuse("bitvox::layer_norm", status);
}

bool is_rows(const Tensor& tensor, int64_t batch, int64_t columns) {
    return dense(tensor, ScalarType::Float) && tensor.dim() == 3 && tensor.size(0) == batch &&
           tensor.size(2) == columns;
}

Error run_attention(const Tensor& q, const Tensor& k, const Tensor& v, int64_t heads, double scale,
                    Tensor& out) {
    const int64_t batch = q.dim() == 3 ? q.size(0) : 0, columns = q.dim() == 3 ? q.size(2) : 0;
    if (!is_rows(q, batch, columns) || !is_rows(k, batch, columns) || !is_rows(v, batch, columns) ||
        k.size(1) != v.size(1) || !dense(out, ScalarType::Float) || heads < 1 || columns % heads != 0) {
        ET_LOG(Error, "bitvox::attention: q, k and v must be dense floats [B, T, C], C a multiple of the heads");
        return Error::InvalidArgument;
    }
    const Error resized = executorch::runtime::resize_tensor(out, q.sizes());
    if (resized != Error::Ok) return resized;
    nbit_attention_call call{};
    call.batch = batch;
    call.queries = q.size(1);
    call.keys = k.size(1);
    call.heads = int32_t(heads);
    call.width = int32_t(columns / heads);
    const auto rows = [&](const Tensor& tensor) {
        return nbit_heads{tensor.const_data_ptr<float>(), tensor.size(1) * columns, call.width, columns};
    };
    call.q = rows(q);
    call.k = rows(k);
    call.v = rows(v);
    call.scale = float(scale);
    call.y = out.mutable_data_ptr<float>();
    LentPool pool(int(executorch::extension::get_thread_count()));
    call.pool = pool.get();
    nbit_status status = nbit_attention_workspace(&call, &call.workspace_bytes);
    if (status != NBIT_OK) return refuse("bitvox::attention", status);
    call.workspace = workspace(call.workspace_bytes);
    if (!call.workspace) return Error::MemoryAllocationFailed;
    status = nbit_attention(&call);
    return status == NBIT_OK ? Error::Ok : refuse("bitvox::attention", status);
}

Tensor& wave_conv1d_out(KernelRuntimeContext& context, const Tensor& x, const Tensor& weight,
                        std::optional<Tensor> bias, int64_t stride, Tensor& out) {
    return finish(context, run_wave_conv1d(x, weight, bias, stride, out), out);
}

Tensor& instance_norm_out(KernelRuntimeContext& context, const Tensor& x, const Tensor& scale,
                          const Tensor& bias, double epsilon, std::string_view activation, Tensor& out) {
    return finish(context, run_instance_norm(x, scale, bias, epsilon, activation, out), out);
}

Tensor& layer_norm_out(KernelRuntimeContext& context, const Tensor& x, std::optional<Tensor> added,
                       const Tensor& scale, const Tensor& bias, double epsilon, Tensor& out) {
    return finish(context, run_layer_norm(x, added, scale, bias, epsilon, out), out);
}

Tensor& attention_out(KernelRuntimeContext& context, const Tensor& q, const Tensor& k, const Tensor& v,
                      int64_t heads, double scale, Tensor& out) {
    return finish(context, run_attention(q, k, v, heads, scale, out), out);
}

EXECUTORCH_LIBRARY(bitvox, "wave_conv1d.out", wave_conv1d_out);
EXECUTORCH_LIBRARY(bitvox, "instance_norm.out", instance_norm_out);
EXECUTORCH_LIBRARY(bitvox, "layer_norm.out", layer_norm_out);
EXECUTORCH_LIBRARY(bitvox, "attention.out", attention_out);

}  // namespace
