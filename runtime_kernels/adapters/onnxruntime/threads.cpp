#include "threads.h"

namespace bitvox_ort {

Threads::Loan::Loan(Threads& threads) {
    if (threads.count_ < 2) return;
    lock_ = std::unique_lock<std::mutex>(threads.mutex_, std::try_to_lock);
    if (!lock_) return;
    if (!threads.pool_) threads.pool_.reset(nbit_pool_create(threads.count_));
    pool_ = threads.pool_.get();
}

}  // namespace bitvox_ort
