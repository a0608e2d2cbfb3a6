// Memory and threads that a call borrows and that stay for the next one.
#ifndef BITVOX_ADAPTERS_EXECUTORCH_MEMORY_H
#define BITVOX_ADAPTERS_EXECUTORCH_MEMORY_H

#include <cstddef>
#include <mutex>

#include "bitvox/nbit.h"

namespace bitvox {

// At least `bytes` of this thread's workspace, aligned to NBIT_ALIGNMENT; null where memory is out. Valid until
// the thread asks again; freed when the thread ends.
void* workspace(size_t bytes);

// `data` itself where it is aligned to NBIT_ALIGNMENT, as programs written by bitvox keep it; else a copy, valid
// until the thread asks again. Null where memory is out.
const void* aligned_weight(const void* data, size_t bytes);

// A pool of `threads`, lent to one call at a time; none, and so one thread, for 1 or where none can start.
class LentPool {
  public:
    explicit LentPool(int threads);
    nbit_pool* get() const { return pool_; }

  private:
    std::unique_lock<std::mutex> lock_;
    nbit_pool* pool_ = nullptr;
};

}  // namespace bitvox

#endif
