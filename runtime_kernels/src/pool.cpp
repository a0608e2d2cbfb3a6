// A small pool: workers spin briefly for the next call, since layers follow each other within microseconds,
// then park.
#include "pool.h"

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int kSpins = 4000;  // some tens of microseconds

void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

struct nbit_pool {
    std::vector<std::thread> workers;
    std::mutex mutex;
    std::condition_variable wake;
    std::atomic<uint64_t> round{0};  // grows by one per call; written under the mutex
    std::atomic<int> pending{0};     // tasks of this round that workers still run
    std::atomic<bool> stopping{false};
    int count = 0;
    bitvox::Task task = nullptr;
    void* context = nullptr;

    ~nbit_pool() {
        {
            std::lock_guard<std::mutex> lock(mutex);
            stopping = true;
            ++round;
        }
        wake.notify_all();
        for (std::thread& worker : workers) worker.join();
    }

    void await(uint64_t seen) {
        for (int i = 0; i < kSpins; ++i) {
            if (round.load(std::memory_order_acquire) != seen) return;
            relax();
        }
        std::unique_lock<std::mutex> lock(mutex);
        wake.wait(lock, [&] { return round.load(std::memory_order_relaxed) != seen; });
    }

    void work(int index) {
        for (uint64_t seen = 0;;) {
            await(seen);
            ++seen;  // a round ends only when every worker has answered it, so none is ever skipped
            if (stopping) return;
            if (index < count) task(context, index);
            pending.fetch_sub(1, std::memory_order_release);
        }
    }

    void run(int tasks, bitvox::Task body, void* argument) {
        count = tasks;
        task = body;
        context = argument;
        pending.store(int(workers.size()), std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> lock(mutex);
            round.fetch_add(1, std::memory_order_release);
        }
        wake.notify_all();
        body(argument, 0);
        for (int spins = 0; pending.load(std::memory_order_acquire) > 0; ++spins) {
            if (spins < kSpins) relax();
            else std::this_thread::yield();  // more threads than cores: let the worker run
        }
    }
};

namespace bitvox {

void run_tasks(nbit_pool* pool, int count, Task task, void* context) {
    if (count > 1) pool->run(count, task, context);
    else task(context, 0);
}

}  // namespace bitvox

extern "C" {

nbit_pool* nbit_pool_create(int threads) {
    if (threads < 1) return nullptr;
    std::unique_ptr<nbit_pool> pool(new (std::nothrow) nbit_pool);
    if (!pool) return nullptr;
    try {
        for (int i = 1; i < threads; ++i) pool->workers.emplace_back(&nbit_pool::work, pool.get(), i);
    } catch (const std::exception&) {
        return nullptr;  // the destructor stops those that did start
    }
    return pool.release();
}

void nbit_pool_destroy(nbit_pool* pool) { delete pool; }

int nbit_pool_threads(const nbit_pool* pool) { return pool ? int(pool->workers.size()) + 1 : 1; }

}  // extern "C"
