// Attention in float: the scores of a block of queries, their softmax, and the mean of the values by it, while
// all of it lies in the nearest caches.
#include <cmath>
#include <cstring>
#include <initializer_list>

#include "dispatch.h"
#include "panel.h"
#include "pool.h"

namespace bitvox {
namespace {

// Queries whose scores exist at a time: a multiple of the tallest tiles, and few enough for the second cache.
constexpr int kQueries = 48;
// Keys of a panel: its columns, a whole number of the widest tiles.
constexpr int kPanel = 64;
// Keys whose values are multiplied while they lie in the nearest cache.
constexpr int kValues = 96;
// From so many queries on, it pays to lay out keys and values anew.
constexpr int64_t kMany = 8;
constexpr int64_t kMost = int64_t(1) << 24;

struct Head {
    const float* q;
    const void* k;
    const void* v;
    const float* mask;
    float* y;
};

struct Room {
    float* k;  // panels [width][kPanel]; null where keys are read where they lie
    float* v;  // [keys][width]; null likewise
    float* scores;
};

struct AttentionJob {
    const nbit_attention_call& call;
    const Kernels& kernels;
    int64_t room_bytes;
};

bool lays_values(const nbit_attention_call& c) {
    return !c.halves && c.queries >= kMany && c.v.row != c.width;
}

// Scores of a query, in whole panels.
int64_t score_stride(const nbit_attention_call& c) { return round_up(c.keys, kPanel); }

Room carve_room(Carver& carver, const nbit_attention_call& c) {
    Room room{};
    const int64_t keys = score_stride(c);
    if (!c.keys_across) room.k = carver.take<float>(size_t(keys * c.width));
    if (lays_values(c)) room.v = carver.take<float>(size_t(c.keys * c.width));
    room.scores = carver.take<float>(size_t(keys * (c.queries < kQueries ? c.queries : kQueries)));
    return room;
}

Head head_of(const nbit_attention_call& c, int64_t item, int64_t head) {
    const auto start = [&](const nbit_heads& heads, size_t size) {
        const char* data = static_cast<const char*>(heads.data);
        return data ? data + (item * heads.batch + head * heads.head) * int64_t(size) : nullptr;
    };
    const size_t kept = c.halves ? 2 : 4;
    return {reinterpret_cast<const float*>(start(c.q, 4)), start(c.k, kept), start(c.v, kept),
            reinterpret_cast<const float*>(start(c.mask, 4)),
            c.y + (item * c.queries * c.heads + head) * c.width};
}

// Keys as panels of columns; what is missing from the last is zero.
void lay_keys(const AttentionJob& job, const Head& head, float* panels) {
    const nbit_attention_call& c = job.call;
    const float* k = static_cast<const float*>(head.k);
    for (int64_t first = 0; first < c.keys; first += kPanel, panels += kPanel * c.width) {
        const int count = int(c.keys - first < kPanel ? c.keys - first : kPanel);
        if (count < kPanel) std::memset(panels, 0, size_t(kPanel) * c.width * sizeof(float));
        job.kernels.transpose({k + first * c.k.row, ptrdiff_t(c.k.row), count, c.width}, panels, kPanel);
    }
}

void lay_values(const nbit_attention_call& c, const Head& head, float* dense) {
    const float* v = static_cast<const float*>(head.v);
    for (int64_t t = 0; t < c.keys; ++t)
        std::memcpy(dense + t * c.width, v + t * c.v.row, size_t(c.width) * sizeof(float));
}

void score(const AttentionJob& job, const Head& head, const Room& room, int64_t first, int count) {
    const nbit_attention_call& c = job.call;
    const ptrdiff_t stride = ptrdiff_t(score_stride(c));
    Product p{};
    p.a = head.q + first * c.q.row;
    p.a_stride = ptrdiff_t(c.q.row);
    p.c = room.scores;
    p.c_stride = stride;
    p.rows = count;
    p.depth = c.width;
    if (c.keys_across) {
        p.b = head.k;
        p.b_stride = ptrdiff_t(c.k.row);
        p.halves = c.halves != 0;
        p.columns = int(c.keys);
        return job.kernels.product(p);
    }
    p.b_stride = p.columns = kPanel;
    for (int64_t panel = 0; panel < stride; panel += kPanel) {
        p.b = room.k + panel * c.width;
        p.c = room.scores + panel;
        job.kernels.product(p);
    }
}

void mix(const AttentionJob& job, const Head& head, const Room& room, int64_t first, int count) {
    const nbit_attention_call& c = job.call;
    Product p{};
    p.a_stride = ptrdiff_t(score_stride(c));
    p.b_stride = room.v ? c.width : ptrdiff_t(c.v.row);
    p.halves = c.halves != 0;
    p.c = head.y + first * c.heads * c.width;
    p.c_stride = ptrdiff_t(c.heads) * c.width;
    p.rows = count;
    p.columns = c.width;
    const char* values = room.v ? reinterpret_cast<const char*>(room.v) : static_cast<const char*>(head.v);
    for (int64_t t = 0; t < c.keys; t += kValues) {
        p.a = room.scores + t;
        p.b = values + t * p.b_stride * (c.halves ? 2 : 4);
        p.depth = int(c.keys - t < kValues ? c.keys - t : kValues);
        p.resumes = t > 0;
        job.kernels.product(p);
    }
}

void attend(const AttentionJob& job, const Head& head, const Room& room, int64_t first, int count) {
    const nbit_attention_call& c = job.call;
    score(job, head, room, first, count);
    float sums[kQueries];
    for (int r = 0; r < count; ++r) {
        const float* mask = head.mask ? head.mask + (first + r) * c.mask.row : nullptr;
        sums[r] = job.kernels.exponentials(room.scores + r * score_stride(c), mask, size_t(c.keys), c.scale);
    }
    mix(job, head, room, first, count);
    for (int r = 0; r < count; ++r) {
        float* y = head.y + (first + r) * c.heads * c.width;
        for (int i = 0; i < c.width; ++i) y[i] /= sums[r];
    }
}

void attend_heads(void* context, int thread, Pieces& pieces) {
    const AttentionJob& job = *static_cast<const AttentionJob*>(context);
    const nbit_attention_call& c = job.call;
    Carver carver(static_cast<uint8_t*>(c.workspace) + thread * job.room_bytes);
    const Room room = carve_room(carver, c);
    for (Range range; pieces.next(&range);) {
        for (int64_t piece = range.begin; piece < range.end; ++piece) {
            const Head head = head_of(c, piece / c.heads, piece % c.heads);
            if (room.k) lay_keys(job, head, room.k);
            if (room.v) lay_values(c, head, room.v);
            for (int64_t first = 0; first < c.queries; first += kQueries)
                attend(job, head, room, first, int(c.queries - first < kQueries ? c.queries - first : kQueries));
        }
    }
}

nbit_status check(const nbit_attention_call* c) {
    if (!c) return NBIT_BAD_POINTER;
    for (const int64_t extent : {c->batch, c->queries, c->keys, int64_t(c->heads), int64_t(c->width)})
        if (extent < 1 || extent > kMost) return NBIT_BAD_SHAPE;
    if (c->keys > kMost / c->width) return NBIT_BAD_SHAPE;
    if (!(c->scale > 0) || std::isinf(c->scale) || (c->halves && !c->keys_across)) return NBIT_BAD_OPTION;
    return NBIT_OK;
}

}  // namespace
}  // namespace bitvox

using namespace bitvox;

extern "C" {

nbit_status nbit_attention_workspace(const nbit_attention_call* call, size_t* bytes) {
    if (!bytes) return NBIT_BAD_POINTER;
    const nbit_status status = check(call);
    if (status != NBIT_OK) return status;
    Carver carver(nullptr);
    carve_room(carver, *call);
    *bytes = carver.used() * size_t(nbit_pool_threads(call->pool));
    return NBIT_OK;
}

nbit_status nbit_attention(const nbit_attention_call* call) {
    size_t needed = 0;
    const nbit_status status = nbit_attention_workspace(call, &needed);
    if (status != NBIT_OK) return status;
    if (!call->q.data || !call->k.data || !call->v.data || !call->y || !call->workspace) return NBIT_BAD_POINTER;
    if (call->workspace_bytes < needed) return NBIT_BAD_SIZE;
    const Kernels* kernels = find_kernels(call->isa);
    if (!kernels) return NBIT_BAD_ISA;
    AttentionJob job{*call, *kernels, int64_t(needed) / nbit_pool_threads(call->pool)};
    run_pieces(call->pool, call->batch * call->heads, attend_heads, &job);
    return NBIT_OK;
}

}  // extern "C"
