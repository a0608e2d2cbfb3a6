// Work on rows of activations, in plain loops that each unit's compiler flags turn into its own vectors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels.h"
#include "unroll.h"

namespace bitvox {
namespace {

uint32_t magnitude(const float* x, size_t count) {
    int32_t largest = 0;  // bits of |x| order as signed integers
    for (size_t i = 0; i < count; ++i) {
        int32_t bits;
        std::memcpy(&bits, x + i, 4);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return uint32_t(largest);
}

// Nearest even for |v| < 2^22: the float adder does the rounding at 1.5 * 2^23.
BITVOX_INLINE int32_t round_small(float v) {
    const float shifted = v + 0x1.8p23f;
    int32_t bits;
    std::memcpy(&bits, &shifted, 4);
    return bits - 0x4b400000;
}

BITVOX_INLINE int32_t dynamic_code(float x, float factor) { return round_small(x * factor); }

BITVOX_INLINE int32_t calibrated_code(float x, float scale, int32_t zero) {
    float v = x / scale;
    v = v > -512.0f ? v : -512.0f;  // also catches NaN
    v = v < 512.0f ? v : 512.0f;
    int32_t code = round_small(v) + zero;
    code = code > -128 ? code : -128;
    return code < 127 ? code : 127;
}

void quantise(const float* x, float factor, int8_t* q, size_t count) {
    for (size_t i = 0; i < count; ++i) q[i] = int8_t(dynamic_code(x[i], factor));
}

void quantise_calibrated(const float* x, float scale, int32_t zero, int8_t* q, size_t count) {
    for (size_t i = 0; i < count; ++i) q[i] = int8_t(calibrated_code(x[i], scale, zero));
}

using FourWords = uint32_t __attribute__((vector_size(16)));

// Sixteen channels of four frames, each word four channels of one frame: frame by frame.
BITVOX_INLINE void store_frames(const uint32_t (*words)[16], int f, int8_t* q, ptrdiff_t q_stride) {
    FourWords row[4];
    for (int quad = 0; quad < 4; ++quad) std::memcpy(row + quad, words[quad] + f, 16);
    const FourWords low01 = __builtin_shuffle(row[0], row[1], FourWords{0, 4, 1, 5});
    const FourWords low23 = __builtin_shuffle(row[2], row[3], FourWords{0, 4, 1, 5});
    const FourWords high01 = __builtin_shuffle(row[0], row[1], FourWords{2, 6, 3, 7});
    const FourWords high23 = __builtin_shuffle(row[2], row[3], FourWords{2, 6, 3, 7});
    const FourWords frame[4] = {__builtin_shuffle(low01, low23, FourWords{0, 1, 4, 5}),
                                __builtin_shuffle(low01, low23, FourWords{2, 3, 6, 7}),
                                __builtin_shuffle(high01, high23, FourWords{0, 1, 4, 5}),
                                __builtin_shuffle(high01, high23, FourWords{2, 3, 6, 7})};
    for (int i = 0; i < 4; ++i) std::memcpy(q + (f + i) * q_stride, frame + i, 16);
}

// Codes of 16 frames of a channel at a time; four channels fill one word per frame, four words one store.
template <class Code>
BITVOX_INLINE void interleave(const Grid& x, int8_t* q, ptrdiff_t q_stride, Code code) {
    constexpr int kFrames = 16, kChannels = 16;
    const int channels = x.rows / kChannels * kChannels, frames = x.columns / kFrames * kFrames;
    for (int c = 0; c < channels; c += kChannels) {
        for (int begin = 0; begin < frames; begin += kFrames) {
            // The next channels' frames: far apart, so that no prefetcher of the CPU sees them coming.
            const int ahead = c + kChannels < channels ? kChannels : 0;
            for (int i = 0; i < ahead; ++i) __builtin_prefetch(x.data + (c + ahead + i) * x.stride + begin);
            uint32_t words[4][kFrames];
            for (int quad = 0; quad < 4; ++quad) {
                const float* at = x.data + (c + 4 * quad) * x.stride + begin;
                for (int f = 0; f < kFrames; ++f) {
                    words[quad][f] = uint32_t(code(at[f]) & 255) | uint32_t(code(at[f + x.stride]) & 255) << 8 |
                                     uint32_t(code(at[f + 2 * x.stride]) & 255) << 16 |
                                     uint32_t(code(at[f + 3 * x.stride])) << 24;
                }
            }
            for (int f = 0; f < kFrames; f += 4) store_frames(words, f, q + begin * q_stride + c, q_stride);
        }
    }
    for (int c = 0; c < x.rows; ++c) {
        for (int f = c < channels ? frames : 0; f < x.columns; ++f)
            q[f * q_stride + c] = int8_t(code(x.data[c * x.stride + f]));
    }
}

void quantise_frames(const Grid& x, float factor, int8_t* q, ptrdiff_t q_stride) {
    interleave(x, q, q_stride, [=](float v) { return dynamic_code(v, factor); });
}

void quantise_frames_calibrated(const Grid& x, float scale, int32_t zero, int8_t* q, ptrdiff_t q_stride) {
    interleave(x, q, q_stride, [=](float v) { return calibrated_code(v, scale, zero); });
}

using Four = float __attribute__((vector_size(16)));
using Order = int __attribute__((vector_size(16)));

BITVOX_INLINE void transpose_4x4(const float* in, ptrdiff_t in_stride, float* out, ptrdiff_t out_stride) {
    Four row[4];
    for (int r = 0; r < 4; ++r) std::memcpy(row + r, in + r * in_stride, 16);
    const Four low01 = __builtin_shuffle(row[0], row[1], Order{0, 4, 1, 5});
    const Four low23 = __builtin_shuffle(row[2], row[3], Order{0, 4, 1, 5});
    const Four high01 = __builtin_shuffle(row[0], row[1], Order{2, 6, 3, 7});
    const Four high23 = __builtin_shuffle(row[2], row[3], Order{2, 6, 3, 7});
    const Four column[4] = {__builtin_shuffle(low01, low23, Order{0, 1, 4, 5}),
                            __builtin_shuffle(low01, low23, Order{2, 3, 6, 7}),
                            __builtin_shuffle(high01, high23, Order{0, 1, 4, 5}),
                            __builtin_shuffle(high01, high23, Order{2, 3, 6, 7})};
    for (int c = 0; c < 4; ++c) std::memcpy(out + c * out_stride, column + c, 16);
}

void transpose(const Grid& in, float* out, ptrdiff_t out_stride) {
    const int rows = in.rows / 4 * 4, columns = in.columns / 4 * 4;
    for (int c = 0; c < columns; c += 4) {
        for (int r = 0; r < rows; r += 4) {
            transpose_4x4(in.data + r * in.stride + c, in.stride, out + c * out_stride + r, out_stride);
        }
    }
    for (int c = 0; c < in.columns; ++c) {
        for (int r = c < columns ? rows : 0; r < in.rows; ++r) {
            out[c * out_stride + r] = in.data[r * in.stride + c];
        }
    }
}

int32_t sum(const int8_t* q, size_t count) {
    int32_t total = 0;
    for (size_t i = 0; i < count; ++i) total += q[i];
    return total;
}

void group_sums(const int8_t* q, int depth, int groups, int32_t factor, int32_t* sums) {
    for (int g = 0; g < groups; ++g) {
        int32_t total = 0;
        for (int begin = 0; begin < depth; begin += 32) {
            for (int i = 0; i < 32; ++i) total += q[begin + i];
        }
        sums[g] = factor * total;
        q += depth;
    }
}

// By shifting the fields into place and moving the exponent's bias with an exact product.
void widen_halves(const uint8_t* halves, int count, float* values, ptrdiff_t stride) {
    for (int group = 0; group < count; ++group) {
        for (int c = 0; c < 16; ++c) {
            uint16_t half;
            std::memcpy(&half, halves + 2 * c, 2);
            const uint32_t fields = uint32_t(half & 0x7fff) << 13 | uint32_t(half & 0x8000) << 16;
            float value;
            std::memcpy(&value, &fields, 4);
            values[c] = value * 0x1p112f;
        }
        halves += 32;
        values += stride;
    }
}

// exp(-t) for t in 0..87 by 2^n * p(f); relative error below 2e-7.
BITVOX_INLINE float exp_minus(float t) {
    const float scaled = t * -1.44269504f;
    const float shifted = scaled + 0x1.8p23f;
    int32_t n;
    std::memcpy(&n, &shifted, 4);
    n -= 0x4b400000;
    const float f = (scaled - (shifted - 0x1.8p23f)) * 0.69314718f;
    float p = 1.0f / 720.0f;
    p = p * f + 1.0f / 120.0f;
    p = p * f + 1.0f / 24.0f;
    p = p * f + 1.0f / 6.0f;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    const int32_t power = (n + 127) << 23;
    float scale;
    std::memcpy(&scale, &power, 4);
    return p * scale;
}

// x * Phi(x), with the tail of Phi by Abramowitz and Stegun 26.2.17's sibling 7.1.26 (absolute error of
// erf 1.5e-7).
void gelu(float* y, size_t count) {
    for (size_t i = 0; i < count; ++i) {
        const float x = y[i];
        float a = x < 0.0f ? -x : x;
        a = a < 12.0f ? a : 12.0f;  // beyond, the tail is below every float; NaN passes through x below
        const float z = a * 0.70710678f;
        const float t = 1.0f / (1.0f + 0.3275911f * z);
        float tail = 1.061405429f;
        tail = tail * t - 1.453152027f;
        tail = tail * t + 1.421413741f;
        tail = tail * t - 0.284496736f;
        tail = tail * t + 0.254829592f;
        tail = 0.5f * tail * t * exp_minus(z * z);
        y[i] = x < 0.0f ? x * tail : x - x * tail;
    }
}

// Sum of term(x[i]) over all i, in as many independent sums as fill vectors of any width.
template <class Term>
BITVOX_INLINE double total(const float* x, size_t count, Term term) {
    constexpr size_t kLanes = 64;
    float lanes[kLanes] = {};
    size_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
        for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(x[i + lane]);
    }
    double sum = 0;
    for (; i < count; ++i) sum += term(x[i]);
    for (const float lane : lanes) sum += lane;
    return sum;
}

struct Spread {
    float mean, left;  // the mean is their sum: the second is what the first one's roundings left out
    float variance;
};

BITVOX_INLINE Spread spread_of(const float* x, size_t count) {
    const float mean = float(total(x, count, [](float v) { return v; }) / double(count));
    // It matters where the mean is far above the deviation.
    const float left = float(total(x, count, [mean](float v) { return v - mean; }) / double(count));
    const double squares = total(x, count, [mean](float v) { return (v - mean) * (v - mean); });
    return {mean, left, float(squares / double(count)) - left * left};
}

void normalise(const float* x, float* y, size_t count, float scale, float bias, float epsilon) {
    const Spread spread = spread_of(x, count);
    const float factor = scale / __builtin_sqrtf(spread.variance + epsilon);
    const float shift = bias - spread.left * factor;
    for (size_t i = 0; i < count; ++i) y[i] = (x[i] - spread.mean) * factor + shift;
}

void normalise_row(const float* x, const float* added, float* y, size_t count, const float* scale,
                   const float* bias, float epsilon) {
    if (added) {
        for (size_t i = 0; i < count; ++i) y[i] = x[i] + added[i];
        x = y;
    }
    const Spread spread = spread_of(x, count);
    const float factor = 1.0f / __builtin_sqrtf(spread.variance + epsilon);
    const float shift = -spread.left * factor;
    for (size_t i = 0; i < count; ++i) y[i] = ((x[i] - spread.mean) * factor + shift) * scale[i] + bias[i];
}

using Run16 = float __attribute__((vector_size(64)));

// Four sums of their own: as an array they would live in memory from tap to tap, at a tenth of the speed.
void filter(const Grid& phases, const float* weight, int taps, float bias, float* y, size_t count) {
    constexpr size_t kLanes = 16, kRun = 4 * kLanes;
    const auto load = [](const float* from) {
        Run16 lanes;
        std::memcpy(&lanes, from, sizeof lanes);
        return lanes;
    };
    size_t i = 0;
    for (; i + kRun <= count; i += kRun) {
        Run16 sum0 = Run16{} + bias, sum1 = sum0, sum2 = sum0, sum3 = sum0;
        for (int j = 0; j < taps; ++j) {
            const float* from = phases.data + j % phases.rows * phases.stride + j / phases.rows + i;
            sum0 += weight[j] * load(from);
            sum1 += weight[j] * load(from + kLanes);
            sum2 += weight[j] * load(from + 2 * kLanes);
            sum3 += weight[j] * load(from + 3 * kLanes);
        }
        std::memcpy(y + i, &sum0, sizeof sum0);
        std::memcpy(y + i + kLanes, &sum1, sizeof sum1);
        std::memcpy(y + i + 2 * kLanes, &sum2, sizeof sum2);
        std::memcpy(y + i + 3 * kLanes, &sum3, sizeof sum3);
    }
    for (; i < count; ++i) {
        float sum = bias;
        for (int j = 0; j < taps; ++j)
            sum += weight[j] * phases.data[j % phases.rows * phases.stride + j / phases.rows + ptrdiff_t(i)];
        y[i] = sum;
    }
}

// 2^v for v <= 1, no less than 2^-126; NaN for NaN. Relative error below 2e-7.
BITVOX_INLINE float power_of_two(float v) {
    v = v < -126.0f ? -126.0f : v;
    const float shifted = v + 0x1.8p23f;
    const float f = v - (shifted - 0x1.8p23f);
    float p = __builtin_fmaf(1.54035304e-4f, f, 1.33335581e-3f);
    p = __builtin_fmaf(p, f, 9.61812911e-3f);
    p = __builtin_fmaf(p, f, 5.55041087e-2f);
    p = __builtin_fmaf(p, f, 2.40226507e-1f);
    p = __builtin_fmaf(p, f, 6.93147181e-1f);
    p = __builtin_fmaf(p, f, 1.0f);
    uint32_t bits;
    std::memcpy(&bits, &shifted, 4);
    bits = (bits + 127u) << 23;  // the lowest bits of the shifted value are the exponent
    float scale;
    std::memcpy(&scale, &bits, 4);
    return p * scale;
}

constexpr size_t kScores = 64;  // of a step; see Kernels::exponentials

BITVOX_INLINE float largest_of(const float* x, size_t count) {
    Run16 most[4];
    for (Run16& run : most) run = Run16{} - __builtin_inff();
    for (size_t i = 0; i < count; i += kScores) {
        for (size_t j = 0; j < 4; ++j) {
            Run16 run;
            std::memcpy(&run, x + i + 16 * j, sizeof run);
            most[j] = run > most[j] ? run : most[j];
        }
    }
    float largest = -__builtin_inff();
    for (const Run16& run : most) {
        for (size_t lane = 0; lane < 16; ++lane) largest = run[lane] > largest ? run[lane] : largest;
    }
    return largest;
}

// A common factor of all scores' powers, as the rounding of `shift` leaves it, is also one of their sum.
float exponentials(float* x, const float* mask, size_t count, float scale) {
    if (mask) {
        for (size_t i = 0; i < count; ++i) x[i] = __builtin_fmaf(x[i], scale, mask[i]);
        scale = 1.0f;
    }
    const size_t steps = (count + kScores - 1) / kScores * kScores;
    for (size_t i = count; i < steps; ++i) x[i] = -__builtin_inff();
    const float factor = scale * 1.44269504f, shift = largest_of(x, steps) * -factor;
    Run16 sums[4] = {};
    for (size_t i = 0; i < steps; i += kScores) {
        for (size_t j = 0; j < kScores; ++j)
            x[i + j] = power_of_two(__builtin_fmaf(x[i + j], factor, shift));
        for (size_t j = 0; j < 4; ++j) {
            Run16 run;
            std::memcpy(&run, x + i + 16 * j, sizeof run);
            sums[j] += run;
        }
    }
    const Run16 run = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    float sum = 0.0f;
    for (size_t lane = 0; lane < 16; ++lane) sum += run[lane];
    return sum;
}

}  // namespace
}  // namespace bitvox
