// Loops that the compiler must unroll: accumulators live in registers only if every index is a constant.
#pragma once

#include <cstdint>

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

// Calls body(Index<n>) for the n in begin..end-1 that equals `value`.
template <int begin, int end, class Body>
BITVOX_INLINE void choose(int value, Body&& body) {
    unroll<begin, end>([&](auto n) {
        if (n == value) body(n);
    });
}

// No instruction. Loads through the pointer stay behind this point: without it the compiler pulls those of
// later quads up through an unrolled loop until registers run out.
BITVOX_INLINE void keep_order(const uint8_t*& pointer) { asm volatile("" : "+r"(pointer)); }

// No instruction. The value must exist here: else the compiler saves additions for later, and every addend
// needs a register meanwhile.
template <class Vector>
BITVOX_INLINE Vector pinned(Vector value) {
#if defined(__aarch64__)
    asm volatile("" : "+w"(value));
#else
    asm volatile("" : "+v"(value));
#endif
    return value;
}

}  // namespace
}  // namespace bitvox
