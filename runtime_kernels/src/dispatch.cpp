// Chooses a path from what the CPU reports; BITVOX_ISA overrides it.
#include "dispatch.h"

#include <cstdlib>
#include <cstring>

#include "bitvox/nbit.h"

namespace bitvox {
namespace {

using Getter = const Kernels& (*)();

// Best first.
constexpr Getter kPaths[] = {
#if defined(__x86_64__)
    kernels_avx512vnni, kernels_avxvnni, kernels_avx512vnni_ymm, kernels_avx2,
#elif defined(__aarch64__)
    kernels_neon_i8mm, kernels_neon_dotprod, kernels_neon,
#endif
    kernels_scalar,
};

const Kernels* find(const char* name) {
    for (const Getter path : kPaths) {
        const Kernels& kernels = path();
        if ((!name || std::strcmp(kernels.name, name) == 0) && kernels.supported()) return &kernels;
    }
    return nullptr;
}

}  // namespace

const Kernels* find_kernels(const char* name) {
    if (name) return find(name);
    const char* forced = std::getenv("BITVOX_ISA");
    return find(forced && *forced ? forced : nullptr);
}

}  // namespace bitvox

extern "C" {

int nbit_available_isas(const char** names, int limit) {
    int count = 0;
    for (const bitvox::Getter path : bitvox::kPaths) {
        const bitvox::Kernels& kernels = path();
        if (!kernels.supported()) continue;
        if (count < limit) names[count] = kernels.name;
        ++count;
    }
    return count;
}

const char* nbit_default_isa(void) {
    const bitvox::Kernels* kernels = bitvox::find_kernels(nullptr);
    return kernels ? kernels->name : nullptr;
}

}  // extern "C"
