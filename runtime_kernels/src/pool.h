// Deals the pieces of a call to the pool's threads and the caller's.
#pragma once

#include <cstdint>

#include "bitvox/nbit.h"

namespace bitvox {

// Pieces [begin, end) of a call.
struct Range {
    int64_t begin, end;
};

class Pieces;

// `thread` is below nbit_pool_threads.
using Task = void (*)(void* context, int thread, Pieces& pieces);

// What one thread takes of a call: shrinking ranges of its own share, then of what others have left.
class Pieces {
  public:
    // Counts the range before it as done; false when no piece is left, and then the call may be over already.
    bool next(Range* range);

  private:
    friend struct ::nbit_pool;
    friend void run_pieces(nbit_pool* pool, int64_t count, Task task, void* context);
    Pieces(nbit_pool* pool, uint32_t round, int thread, Range first)
        : pool_(pool), round_(round), thread_(thread), range_(first) {}

    nbit_pool* pool_;  // null: one thread takes everything
    uint32_t round_;
    int thread_;
    Range range_;
    bool started_ = false;
};

// Whether so many multiplications gain by a second thread.
bool worth_sharing(double multiplications);

// Calls task at most once on every thread, the caller's among them; returns when all `count` pieces are done.
// A worker that comes late, because another program holds its core, finds nothing left and delays nobody.
void run_pieces(nbit_pool* pool, int64_t count, Task task, void* context);

}  // namespace bitvox
