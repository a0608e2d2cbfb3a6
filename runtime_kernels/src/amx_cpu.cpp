#include "amx_cpu.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bitvox {
namespace {

constexpr unsigned kAmxTile = 1u << 24, kAmxInt8 = 1u << 25;  // leaf 7, EDX
constexpr long kRequestPermission = 0x1023;                   // ARCH_REQ_XCOMP_PERM
constexpr long kTileData = 18;                                // the state component of tile contents

// A system that does not know the state, or does not save it, refuses the request.
bool ask() {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    if ((d & kAmxTile) == 0 || (d & kAmxInt8) == 0) return false;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool may_use_amx_int8() {
    static const bool granted = ask();  // for the whole process, and inherited by children
    return granted;
}

}  // namespace bitvox

#else

namespace bitvox {

bool may_use_amx_int8() { return false; }

}  // namespace bitvox

#endif
