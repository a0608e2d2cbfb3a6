// Runs numbered tasks on the pool's threads and the caller's.
#pragma once

#include "bitvox/nbit.h"

namespace bitvox {

using Task = void (*)(void* context, int index);

// Calls task(context, i) once for each i in 0..count-1, count <= threads, and returns when all have returned.
void run_tasks(nbit_pool* pool, int count, Task task, void* context);

}  // namespace bitvox
