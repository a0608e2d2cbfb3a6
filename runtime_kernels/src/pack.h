// The checked view of a packed buffer that the layers work on.
#pragma once

#include "bitvox/nbit.h"
#include "format.h"

namespace bitvox {

constexpr int kMaxOutputs = 1 << 24;

nbit_status open_weight(const void* packed, size_t packed_bytes, Weight* weight, nbit_shape* shape);

}  // namespace bitvox
