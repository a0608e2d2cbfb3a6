// Chooses a path from what the CPU reports; BITVOX_ISA overrides it.
#include "dispatch.h"

#include <cstdlib>
#include <cstring>

#include "bitvox/nbit.h"

namespace bitvox {
namespace {

using Getter = const Kernels& (*)();

// Best first, the scalar path last: CMakeLists.txt knows which units it builds.
constexpr Getter kPaths[] = {BITVOX_PATHS};

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
