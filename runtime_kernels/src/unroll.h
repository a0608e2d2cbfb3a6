// Loops that the compiler must unroll: accumulators live in registers only if every index is a constant.
#pragma once

#define BITVOX_INLINE inline __attribute__((always_inline))
#define BITVOX_NOINLINE __attribute__((noinline))

namespace bitvox {
namespace {  // each unit keeps its own copy: see kernels.h

template <int n>
struct Index {
    static constexpr int value = n;
    constexpr operator int() const { return n; }
};

template <int begin, int end, class Body>
BITVOX_INLINE void unroll(Body&& body) {
    if constexpr (begin < end) {
        body(Index<begin>{});
        unroll<begin + 1, end>(static_cast<Body&&>(body));
    }
}

}  // namespace
}  // namespace bitvox
