// The AMX unit's part of its path; the table is put together in amx_cpu.cpp, which runs on any CPU.
#pragma once

#include "kernels.h"

namespace bitvox {

extern const MatrixTiles kAmxTiles;

}  // namespace bitvox
