// What the checks share: a fixed random sequence, buffers between guard pages, weights and calls.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "bitvox/nbit.h"

struct Random {
    uint64_t state;
    uint32_t next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return uint32_t(state >> 33);
    }
    int below(int limit) { return int(next() % uint32_t(limit)); }
    float normal() { return float(below(2001) - 1000) * 0.003f; }
};

inline void require(bool condition, const char* what) {
    if (condition) return;
    std::printf("FAILED: %s\n", what);
    std::exit(1);
}

inline void require(nbit_status status, const char* what) {
    if (status == NBIT_OK) return;
    std::printf("FAILED: %s: %s\n", what, nbit_status_text(status));
    std::exit(1);
}

// Memory that ends right before a page that cannot be touched, and starts after another; kept 64-byte
// aligned.
class Guarded {
  public:
    explicit Guarded(size_t bytes) : bytes_(bytes) {
        const size_t page = size_t(sysconf(_SC_PAGESIZE));
        mapped_ = (bytes + page - 1) / page * page + 2 * page;
        base_ = static_cast<uint8_t*>(mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        require(base_ != MAP_FAILED, "mmap");
        require(mprotect(base_ + page, mapped_ - 2 * page, PROT_READ | PROT_WRITE) == 0, "mprotect");
        data_ = base_ + mapped_ - page - bytes;
        data_ -= reinterpret_cast<uintptr_t>(data_) % 4;
    }
    Guarded(Guarded&& other) noexcept
        : base_(std::exchange(other.base_, nullptr)),
          data_(other.data_),
          mapped_(other.mapped_),
          bytes_(other.bytes_) {}
    Guarded(const Guarded&) = delete;
    ~Guarded() {
        if (base_) munmap(base_, mapped_);
    }
    template <class T>
    T* as() const {
        return reinterpret_cast<T*>(data_);
    }
    // For packed buffers and workspaces: their sizes are multiples of 32, so at most 32 bytes lie before the
    // guard.
    void* aligned() const { return data_ - reinterpret_cast<uintptr_t>(data_) % NBIT_ALIGNMENT; }
    size_t bytes() const { return bytes_; }

  private:
    uint8_t* base_;
    uint8_t* data_;
    size_t mapped_, bytes_;
};

struct TestWeight {
    nbit_shape shape;
    Guarded packed;
};

inline TestWeight random_weight(Random& random, const nbit_shape& shape) {
    const size_t count = size_t(shape.outputs) * shape.depth;
    const size_t cells = size_t(shape.outputs) * (shape.group ? shape.depth / shape.group : 1);
    Guarded codes(count), scales(cells * 4), zeros(cells);
    for (size_t i = 0; i < count; ++i) codes.as<uint8_t>()[i] = uint8_t(random.below(1 << shape.bits));
    for (size_t i = 0; i < cells; ++i) {
        // Multiples of one float, which any kind of scale can hold.
        const bool steps = shape.scale_type == NBIT_SCALE_STEPS;
        scales.as<float>()[i] =
            float(steps ? random.below((256 >> shape.bits) + 1) : random.below(1000) + 1) * 0x1p-12f;
        zeros.as<uint8_t>()[i] = uint8_t(random.below(1 << shape.bits));
    }
    size_t bytes = 0;
    require(nbit_packed_bytes(&shape, &bytes), "nbit_packed_bytes");
    TestWeight weight{shape, Guarded(bytes)};
    require(nbit_pack(&shape, codes.as<uint8_t>(), scales.as<float>(), zeros.as<uint8_t>(),
                      weight.packed.aligned(), bytes),
            "nbit_pack");
    return weight;
}

inline std::vector<const char*> isas() {
    const char* names[16];
    const int count = nbit_available_isas(names, 16);
    return {names, names + count};
}

inline void run(nbit_linear_call& call) {
    size_t bytes = 0;
    require(nbit_linear_workspace(&call, &bytes), "nbit_linear_workspace");
    Guarded workspace(bytes);
    call.workspace = workspace.aligned();
    call.workspace_bytes = bytes;
    require(nbit_linear(&call), "nbit_linear");
}

inline void run(nbit_attention_call& call) {
    size_t bytes = 0;
    require(nbit_attention_workspace(&call, &bytes), "nbit_attention_workspace");
    Guarded workspace(bytes);
    call.workspace = workspace.aligned();
    call.workspace_bytes = bytes;
    require(nbit_attention(&call), "nbit_attention");
}

inline void run(nbit_conv1d_call& call) {
    size_t bytes = 0;
    require(nbit_conv1d_workspace(&call, &bytes), "nbit_conv1d_workspace");
    Guarded workspace(bytes);
    call.workspace = workspace.aligned();
    call.workspace_bytes = bytes;
    require(nbit_conv1d(&call), "nbit_conv1d");
}
