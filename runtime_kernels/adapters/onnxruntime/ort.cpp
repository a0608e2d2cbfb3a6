#include "ort.h"

#include <cstdint>
#include <memory>
#include <new>

namespace bitvox_ort {
namespace {

struct ReleaseInfo {
    const OrtApi* api;
    void operator()(OrtTensorTypeAndShapeInfo* info) const { api->ReleaseTensorTypeAndShapeInfo(info); }
};

Tensor open_tensor(const OrtApi& api, const OrtValue* value) {
    Tensor tensor;
    if (!value) return tensor;
    OrtTensorTypeAndShapeInfo* raw = nullptr;
    require(api, api.GetTensorTypeAndShape(value, &raw));
    const std::unique_ptr<OrtTensorTypeAndShapeInfo, ReleaseInfo> info(raw, {&api});
    size_t rank = 0;
    require(api, api.GetDimensionsCount(raw, &rank));
    tensor.shape.resize(rank);
    require(api, api.GetDimensions(raw, tensor.shape.data(), rank));
    // The C API has no read-only access; inputs are never written through it.
    require(api, api.GetTensorMutableData(const_cast<OrtValue*>(value), &tensor.data));
    return tensor;
}

// Reads a string that the API writes in two calls: its size, then its bytes.
template <class Read>
std::string read_text(const OrtApi& api, Read read) {
    size_t size = 0;
    require(api, read(nullptr, &size));
    std::string text(size, '\0');
    require(api, read(text.data(), &size));
    text.resize(size ? size - 1 : 0);  // without the closing zero
    return text;
}

}  // namespace

void require(const OrtApi& api, OrtStatus* status) {
    if (!status) return;
    const Error error(api.GetErrorCode(status), api.GetErrorMessage(status));
    api.ReleaseStatus(status);
    throw error;
}

void require(nbit_status status, const std::string& who) {
    if (status != NBIT_OK) throw Error(ORT_INVALID_ARGUMENT, who + ": " + nbit_status_text(status));
}

int64_t Tensor::count(size_t first) const {
    int64_t product = 1;
    for (size_t i = first; i < shape.size(); ++i) product *= shape[i];
    return product;
}

int32_t NodeInfo::integer(const char* attribute) const {
    int64_t value = 0;
    require(api_, api_.KernelInfoGetAttribute_int64(info_, attribute, &value));
    if (value < INT32_MIN || value > INT32_MAX)
        throw Error(ORT_INVALID_ARGUMENT, std::string(attribute) + ": does not fit 32 bits");
    return int32_t(value);
}

float NodeInfo::number(const char* attribute) const {
    float value = 0;
    require(api_, api_.KernelInfoGetAttribute_float(info_, attribute, &value));
    return value;
}

std::string NodeInfo::text(const char* attribute) const {
    return read_text(api_, [&](char* out, size_t* size) {
        return api_.KernelInfoGetAttribute_string(info_, attribute, out, size);
    });
}

std::string NodeInfo::input_name(size_t index) const {
    return read_text(api_, [&](char* out, size_t* size) {
        return api_.KernelInfo_GetInputName(info_, index, out, size);
    });
}

Tensor NodeInfo::constant_input(size_t index) const {
    int is_constant = 0;
    const OrtValue* value = nullptr;
    require(api_, api_.KernelInfoGetConstantInput_tensor(info_, index, &is_constant, &value));
    if (!is_constant || !value)
        throw Error(ORT_INVALID_ARGUMENT, input_name(index) + ": must be an initializer of the model");
    return open_tensor(api_, value);
}

Tensor Run::input(size_t index) const {
    size_t count = 0;
    require(api_, api_.KernelContext_GetInputCount(context_, &count));
    const OrtValue* value = nullptr;
    if (index < count) require(api_, api_.KernelContext_GetInput(context_, index, &value));
    return open_tensor(api_, value);
}

float* Run::output(const std::vector<int64_t>& shape) const {
    OrtValue* value = nullptr;
    require(api_, api_.KernelContext_GetOutput(context_, 0, shape.data(), shape.size(), &value));
    void* data = nullptr;
    require(api_, api_.GetTensorMutableData(value, &data));
    return static_cast<float*>(data);
}

Arena::Arena(const OrtApi& api, const OrtKernelInfo* info) : api_(api) {
    require(api, api.KernelInfoGetAllocator(info, OrtMemTypeDefault, &allocator_));
}

Workspace::Workspace(const Arena& arena, size_t bytes) : allocator_(arena.allocator()) {
    memory_ = allocator_->Alloc(allocator_, bytes + NBIT_ALIGNMENT);
    if (!memory_) throw std::bad_alloc();
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory_);
    aligned_ = reinterpret_cast<void*>((address + NBIT_ALIGNMENT - 1) / NBIT_ALIGNMENT * NBIT_ALIGNMENT);
}

}  // namespace bitvox_ort
