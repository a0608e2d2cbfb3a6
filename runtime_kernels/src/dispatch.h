// Which instruction set runs.
#pragma once

#include "kernels.h"

namespace bitvox {

// The named path, or the default for null; null where there is no such path on this CPU.
const Kernels* find_kernels(const char* name);

}  // namespace bitvox
