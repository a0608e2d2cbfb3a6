// The physical limits that rows of the benchmark are compared with: dot products per second and bytes read
// per second.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <ctime>

namespace {

double thread_seconds() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return double(now.tv_sec) + double(now.tv_nsec) * 1e-9;
}

}  // namespace

extern "C" {

// Operations per second of vpdpbusd from registers alone: 16 independent chains hide its latency.
__attribute__((target("avx512f,avx512vnni"))) double vnni_peak() {
    constexpr int kRounds = 200000;
    __m512i sums[16];
    for (auto& sum : sums) sum = _mm512_setzero_si512();
    __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5);
    const double start = thread_seconds();
    for (int i = 0; i < kRounds; ++i) {
#pragma GCC unroll 16
        for (auto& sum : sums) sum = _mm512_dpbusd_epi32(sum, a, b);
        asm volatile("" : "+v"(a), "+v"(b));
    }
    const double seconds = thread_seconds() - start;
    __m512i total = sums[0];
    for (const auto& sum : sums) total = _mm512_add_epi32(total, sum);
    volatile int keep = _mm512_reduce_add_epi32(total);
    (void)keep;
    return 16.0 * kRounds * 128 / seconds;
}

// Operations per second of matrix registers alone: four sums, 16 rows by 16 columns by 64 deep. The system must
// have granted the registers.
__attribute__((target("amx-tile,amx-int8"))) double amx_peak() {
    constexpr int kRounds = 20000;
    struct alignas(64) {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    asm volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
    const double start = thread_seconds();
    for (int i = 0; i < kRounds; ++i) {
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
    _tile_zero(0);
    const double seconds = thread_seconds() - start;
    _tile_release();
    return 4.0 * kRounds * 2 * 16 * 16 * 64 / seconds;
}

// Bytes per second of one thread that reads a buffer once, in order.
__attribute__((target("avx512f"))) double read_bandwidth(const uint8_t* data, size_t bytes) {
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    const double start = thread_seconds();
    for (size_t i = 0; i + 256 <= bytes; i += 256) {
        a = _mm512_or_si512(a, _mm512_loadu_si512(data + i));
        b = _mm512_or_si512(b, _mm512_loadu_si512(data + i + 64));
        c = _mm512_or_si512(c, _mm512_loadu_si512(data + i + 128));
        d = _mm512_or_si512(d, _mm512_loadu_si512(data + i + 192));
    }
    const double seconds = thread_seconds() - start;
    volatile int keep = _mm512_reduce_or_epi32(_mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d)));
    (void)keep;
    return double(bytes) / seconds;
}

}  // extern "C"
