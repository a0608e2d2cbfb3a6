// One pool of threads per thread count, lent to one call at a time.
#pragma once

#include <memory>
#include <mutex>

#include "bitvox/nbit.h"

namespace bitvox_ort {

class Threads {
  public:
    explicit Threads(int count) : count_(count) {}

    // A loan of the pool; none where the session has one thread or another run has the pool. That run then
    // works alone rather than wait: under concurrent runs the other threads are busy anyway.
    class Loan {
      public:
        explicit Loan(Threads& threads);
        nbit_pool* pool() const { return pool_; }

      private:
        std::unique_lock<std::mutex> lock_;
        nbit_pool* pool_ = nullptr;
    };

  private:
    struct Destroy {
        void operator()(nbit_pool* pool) const { nbit_pool_destroy(pool); }
    };
    const int count_;
    std::mutex mutex_;
    std::unique_ptr<nbit_pool, Destroy> pool_;  // started by the first run that wants it
};

}  // namespace bitvox_ort
