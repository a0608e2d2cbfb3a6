#include "memory.h"

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

namespace bitvox {
namespace {

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

class AlignedBytes {
  public:
    void* reserve(size_t bytes) {
        if (bytes > size_ || !memory_) {
            const size_t rounded = bytes / NBIT_ALIGNMENT * NBIT_ALIGNMENT + NBIT_ALIGNMENT;
            memory_.reset();
            memory_.reset(std::aligned_alloc(NBIT_ALIGNMENT, rounded));
            size_ = memory_ ? rounded : 0;
        }
        return memory_.get();
    }

  private:
    std::unique_ptr<void, Free> memory_;
    size_t size_ = 0;
};

struct Destroy {
    void operator()(nbit_pool* pool) const { nbit_pool_destroy(pool); }
};
// One per process and thread count: a forked child has none of its parent's threads.
using Pools = std::map<std::pair<pid_t, int>, std::unique_ptr<nbit_pool, Destroy>>;

Pools& pools() {
    static Pools* instance = new Pools;  // never destroyed: threads may not be joined while a process exits
    return *instance;
}

std::mutex& pools_mutex() {
    static std::mutex instance;
    return instance;
}

}  // namespace

void* workspace(size_t bytes) {
    thread_local AlignedBytes memory;
    return memory.reserve(bytes);
}

const void* aligned_weight(const void* data, size_t bytes) {
    if (reinterpret_cast<uintptr_t>(data) % NBIT_ALIGNMENT == 0) return data;
    thread_local AlignedBytes memory;
    void* copy = memory.reserve(bytes);
    if (copy) std::memcpy(copy, data, bytes);
    return copy;
}

LentPool::LentPool(int threads) {
    if (threads <= 1) return;
    lock_ = std::unique_lock<std::mutex>(pools_mutex());
    auto& pool = pools()[{getpid(), threads}];
    if (!pool) pool.reset(nbit_pool_create(threads));
    pool_ = pool.get();
}

}  // namespace bitvox
