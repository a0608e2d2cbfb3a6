// A small pool: workers spin briefly for the next call, since layers follow each other within microseconds,
// then park.
#include "pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr auto kSpin = std::chrono::microseconds(100);
constexpr int kSpinsPerLook = 32;  // at the clock

void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits for `done` without giving the core away; false when that took too long.
template <class Done>
bool spin(Done done) {
    const auto end = std::chrono::steady_clock::now() + kSpin;
    do {
        for (int i = 0; i < kSpinsPerLook; ++i) {
            if (done()) return true;
            relax();
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

}  // namespace

namespace bitvox {
namespace {

constexpr int kMostUnits = 0xffff;  // of a home

// The pieces that one thread works off from the front while others may take from the back: so a thread finds
// in its caches what it left there at the last call, and nobody waits for one that is late. Round in the
// upper half, then front and back; a claim of a round that has ended fails.
struct alignas(64) Home {
    std::atomic<uint64_t> state{0};

    static uint64_t pack(uint32_t round, uint32_t front, uint32_t back) {
        return uint64_t(round) << 32 | front << 16 | back;
    }

    // Half of what is left, as offsets into the home.
    bool claim(uint32_t round, bool at_front, Range* range) {
        uint64_t seen = state.load(std::memory_order_acquire);
        for (;;) {
            const uint32_t front = seen >> 16 & 0xffff, back = seen & 0xffff;
            if (uint32_t(seen >> 32) != round || front == back) return false;
            const uint32_t taken = (back - front + 1) / 2;
            const uint32_t begin = at_front ? front : back - taken, end = begin + taken;
            const uint64_t rest = at_front ? pack(round, end, back) : pack(round, front, begin);
            if (!state.compare_exchange_weak(seen, rest, std::memory_order_acq_rel)) continue;
            *range = {begin, end};
            return true;
        }
    }
};

}  // namespace
}  // namespace bitvox

struct nbit_pool {
    explicit nbit_pool(int count) : threads(count), homes(new bitvox::Home[size_t(count)]) {}

    const int threads;
    const std::unique_ptr<bitvox::Home[]> homes;
    std::vector<std::thread> workers;
    std::mutex mutex;
    std::condition_variable wake;
    int parked = 0;  // under the mutex
    bool stopping = false;

    // What describes a round stays as it is until all that was claimed of it is done.
    alignas(64) std::atomic<uint32_t> round{0};
    alignas(64) std::atomic<int64_t> unfinished{0};
    int64_t pieces = 0, grain = 1, units = 0;  // homes count in units of `grain` pieces
    bitvox::Task task = nullptr;
    void* context = nullptr;

    ~nbit_pool() {
        {
            std::lock_guard<std::mutex> lock(mutex);
            stopping = true;
            round.fetch_add(1, std::memory_order_release);
        }
        wake.notify_all();
        for (std::thread& worker : workers) worker.join();
    }

    int64_t first_of(int home) const { return units * home / threads; }

    // From the thread's own home, then from the others'.
    bool claim(uint32_t current, int thread, bitvox::Range* range) {
        for (int i = 0; i < threads; ++i) {
            const int home = (thread + i) % threads;
            if (!homes[home].claim(current, i == 0, range)) continue;
            range->begin = (first_of(home) + range->begin) * grain;
            range->end = std::min((first_of(home) + range->end) * grain, pieces);
            return true;
        }
        return false;
    }

    void await(uint32_t seen) {
        const auto called = [&] { return round.load(std::memory_order_acquire) != seen; };
        if (spin(called)) return;
        std::unique_lock<std::mutex> lock(mutex);
        ++parked;
        wake.wait(lock, called);
        --parked;
    }

    void take_part(uint32_t current, int thread) {
        bitvox::Range first;
        if (!claim(current, thread, &first)) return;
        bitvox::Pieces mine(this, current, thread, first);
        task(context, thread, mine);
    }

    void work(int thread) {
        for (uint32_t seen = 0;;) {
            await(seen);
            seen = round.load(std::memory_order_acquire);
            if (stopping) return;
            take_part(seen, thread);
        }
    }

    void run(int64_t count, bitvox::Task body, void* argument) {
        pieces = count;
        grain = count / (int64_t(bitvox::kMostUnits) * threads) + 1;
        units = (count + grain - 1) / grain;
        task = body;
        context = argument;
        unfinished.store(count, std::memory_order_relaxed);
        const uint32_t next = round.load(std::memory_order_relaxed) + 1;
        for (int home = 0; home < threads; ++home) {
            const uint32_t size = uint32_t(first_of(home + 1) - first_of(home));
            homes[home].state.store(bitvox::Home::pack(next, 0, size), std::memory_order_release);
        }
        bool sleeping;
        {
            std::lock_guard<std::mutex> lock(mutex);
            round.store(next, std::memory_order_release);
            sleeping = parked > 0;
        }
        if (sleeping) wake.notify_all();
        take_part(next, 0);
        const auto done = [&] { return unfinished.load(std::memory_order_acquire) == 0; };
        while (!spin(done)) std::this_thread::yield();  // more threads than cores: let the worker run
    }
};

namespace bitvox {

bool Pieces::next(Range* range) {
    if (started_) {
        const int64_t done = range_.end - range_.begin;
        const bool more = pool_ && pool_->claim(round_, thread_, &range_);
        if (pool_) pool_->unfinished.fetch_sub(done, std::memory_order_acq_rel);
        if (!more) return false;
    }
    started_ = true;
    *range = range_;
    return true;
}

bool worth_sharing(double multiplications) { return multiplications >= 1 << 19; }

void run_pieces(nbit_pool* pool, int64_t count, Task task, void* context) {
    if (nbit_pool_threads(pool) > 1 && count > 1) return pool->run(count, task, context);
    Pieces all(nullptr, 0, 0, {0, count});
    task(context, 0, all);
}

}  // namespace bitvox

extern "C" {

nbit_pool* nbit_pool_create(int threads) {
    if (threads < 1) return nullptr;
    try {
        auto pool = std::make_unique<nbit_pool>(threads);
        for (int i = 1; i < threads; ++i) pool->workers.emplace_back(&nbit_pool::work, pool.get(), i);
        return pool.release();
    } catch (const std::exception&) {
        return nullptr;  // the destructor stops those that did start
    }
}

void nbit_pool_destroy(nbit_pool* pool) { delete pool; }

int nbit_pool_threads(const nbit_pool* pool) { return pool ? pool->threads : 1; }

}  // extern "C"
