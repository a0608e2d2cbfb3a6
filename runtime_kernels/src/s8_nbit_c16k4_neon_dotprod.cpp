// Signed 8-bit activations, n-bit codes in 16-column 4-k order, NEON with the dot product (Cortex-A55, A76
// and later).
#include <sys/auxv.h>

#include "neon_dotprod.h"
#include "table.h"

namespace bitvox {
namespace {

constexpr unsigned long kAsimdDp = 1ul << 20;  // in AT_HWCAP

bool supported() { return getauxval(AT_HWCAP) & kAsimdDp; }

constexpr Kernels kTable = make_kernels<NeonDotprod>("neon_dotprod", supported);

}  // namespace

const Kernels& kernels_neon_dotprod() { return kTable; }

}  // namespace bitvox
