// ONNX Runtime's C API as C++: a call that fails throws, and a callback turns what is thrown into a status.
// Nothing here links to libonnxruntime: every function is reached through the table that the runtime hands over.
#pragma once

#include <exception>
#include <string>
#include <vector>

#include "bitvox/nbit.h"
#include "onnxruntime_c_api.h"

namespace bitvox_ort {

// One clear line for whoever loads or runs the model.
class Error : public std::exception {
  public:
    Error(OrtErrorCode code, std::string line) : code_(code), line_(std::move(line)) {}
    OrtErrorCode code() const { return code_; }
    const char* what() const noexcept override { return line_.c_str(); }

  private:
    OrtErrorCode code_;
    std::string line_;
};

// Throws where the status is an error, and releases it.
void require(const OrtApi& api, OrtStatus* status);

// Throws "WHO: what the status means".
void require(nbit_status status, const std::string& who);

// Runs `body` for a callback of the C API, which must not throw.
template <class Body>
OrtStatus* guarded(const OrtApi& api, Body body) noexcept {
    try {
        body();
        return nullptr;
    } catch (const Error& error) {
        return api.CreateStatus(error.code(), error.what());
    } catch (const std::exception& error) {
        return api.CreateStatus(ORT_FAIL, error.what());
    }
}

// A tensor of the runtime, seen and not owned.
struct Tensor {
    std::vector<int64_t> shape;
    void* data = nullptr;

    int64_t count(size_t first = 0) const;  // elements of one slice along the dimensions before `first`
    const float* floats() const { return static_cast<const float*>(data); }
};

// What a node says of itself, read while its kernel is made.
class NodeInfo {
  public:
    NodeInfo(const OrtApi& api, const OrtKernelInfo* info) : api_(api), info_(info) {}

    int32_t integer(const char* attribute) const;
    float number(const char* attribute) const;
    std::string text(const char* attribute) const;
    std::string input_name(size_t index) const;
    Tensor constant_input(size_t index) const;  // throws where the input is not an initializer

  private:
    const OrtApi& api_;
    const OrtKernelInfo* info_;
};

// One run of a kernel.
class Run {
  public:
    Run(const OrtApi& api, OrtKernelContext* context) : api_(api), context_(context) {}

    Tensor input(size_t index) const;  // no data where an optional input is absent
    float* output(const std::vector<int64_t>& shape) const;

  private:
    const OrtApi& api_;
    OrtKernelContext* context_;
};

// The runtime's own arena, from which a kernel takes what it needs for one run; safe from any thread.
class Arena {
  public:
    Arena(const OrtApi& api, const OrtKernelInfo* info);
    ~Arena() { api_.ReleaseAllocator(allocator_); }
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    OrtAllocator* allocator() const { return allocator_; }

  private:
    const OrtApi& api_;
    OrtAllocator* allocator_ = nullptr;
};

// Memory for as long as one run takes, aligned as the kernels want it.
class Workspace {
  public:
    Workspace(const Arena& arena, size_t bytes);
    ~Workspace() { allocator_->Free(allocator_, memory_); }
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;
    void* data() const { return aligned_; }

  private:
    OrtAllocator* allocator_;
    void* memory_;
    void* aligned_;
};

}  // namespace bitvox_ort
