/* bitvox/nbit.h: linear and Conv1d layers that compute on packed int2..int8 weights.
 *
 * The caller owns all memory: it asks for a size, hands over a buffer, and keeps it alive. Nothing here
 * allocates or keeps state, with one exception that says so: a pool owns its threads. Every call is safe from
 * any thread as long as no two calls share a workspace, an output, or a pool.
 *
 * Weights: weight[n][k] = (code[n][k] - zero) * scale with code in [0, 2^bits); zero and scale belong to an
 * output or to a group of codes along k.
 *
 * Activations are signed 8-bit. Given floats, a linear quantises every row with scale = max|row| / 127, round
 * to nearest even; a convolution does so for every run of NBIT_CONV_FRAMES output frames of one batch item,
 * all channels together.
 *
 * Sums are exact integers, the same on every instruction set; depth is limited so that they fit in 32 bits.
 *
 * A row whose largest magnitude is below 2^-100 counts as zero: its outputs are the bias, exactly. A row that
 * holds a NaN or an infinity gives NaN in all its outputs and touches no other row; in a convolution it is
 * the run of frames that turns NaN. Calibrated activations clip infinities and take NaN as -infinity.
 */
#ifndef BITVOX_NBIT_H
#define BITVOX_NBIT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define NBIT_API __attribute__((visibility("default")))
#else
#define NBIT_API
#endif

#define NBIT_MAX_DEPTH 65536 /* 255 * 128 * 65536 < 2^31 */
#define NBIT_CONV_FRAMES 128
#define NBIT_ALIGNMENT 64 /* of packed buffers and workspaces */

typedef enum {
    NBIT_OK = 0,
    NBIT_BAD_BITS,    /* bits is not 2..8 */
    NBIT_BAD_SHAPE,   /* a dimension is below 1 or above its limit, or does not divide as it must */
    NBIT_BAD_GROUP,   /* group is not 0, 32, 64 or 128, does not divide depth, or is used with taps > 1 */
    NBIT_BAD_CODE,    /* a code needs more than `bits` bits */
    NBIT_BAD_POINTER, /* a required pointer is null, or a buffer is not aligned to NBIT_ALIGNMENT */
    NBIT_BAD_SIZE, /* a buffer is smaller than its query function says, or a plane buffer has another size */
    NBIT_BAD_HEADER, /* the buffer does not start with a packed weight of this version */
    NBIT_BAD_ISA,    /* this CPU or this build does not have the instruction set */
    NBIT_BAD_OPTION, /* an enum or a flag holds an unknown value */
    NBIT_BAD_SCALE   /* the scales of an output are no multiples of one float */
} nbit_status;

NBIT_API const char* nbit_status_text(nbit_status status);

/* ---- Instruction sets ---- */

/* Paths that this CPU and this build have, best first; returns how many, writes at most `limit` names. */
NBIT_API int nbit_available_isas(const char** names, int limit);

/* The path in use: the environment variable BITVOX_ISA where set, else the best. NULL where it names none. */
NBIT_API const char* nbit_default_isa(void);

/* ---- Weights ---- */

typedef enum {
    NBIT_SCALE_F32 = 0,
    NBIT_SCALE_F16 = 1,
    /* For groups of up to 4 bits without zeros: every scale of an output is one float times an integer
     * 0..2^(8 - bits), a byte per group. The kernels fold the integers into the codes, so that groups cost
     * almost nothing. */
    NBIT_SCALE_STEPS = 2
} nbit_scale_type;

typedef struct {
    int32_t bits;       /* 2..8 */
    int32_t outputs;    /* N */
    int32_t depth;      /* K: inputs of a linear; channels per convolution group * taps of a Conv1d */
    int32_t group;      /* codes along K that share a scale: 32, 64, 128, or 0 for all of them */
    int32_t taps;       /* 1, or the k of Conv1d codes [N, C, k], which are then stored tap first */
    int32_t scale_type; /* nbit_scale_type: how scales are kept; they are given as float */
    int32_t has_zeros;  /* 0: every zero is 2^(bits-1); 1: one byte per scale is kept */
} nbit_shape;

/* Bytes of the packed form: 64 + bits*K*N/8 + scales + zeros, with K and N rounded up to 32 and 16. */
NBIT_API nbit_status nbit_packed_bytes(const nbit_shape* shape, size_t* bytes);

/* codes [N, K] (for taps > 1: [N, C, taps]), scales and zeros [N, K/group] (one per row for group 0). Scales
 * that are no NBIT_SCALE_STEPS, where the shape asks for those, are NBIT_BAD_SCALE. */
NBIT_API nbit_status nbit_pack(const nbit_shape* shape, const uint8_t* codes, const float* scales,
                               const uint8_t* zeros, void* packed, size_t packed_bytes);

/* The same from the portable form on disk: the planes of the N*K flattened codes, most significant first. */
NBIT_API nbit_status nbit_pack_from_planes(const nbit_shape* shape, const uint8_t* planes, size_t plane_bytes,
                                           const float* scales, const uint8_t* zeros, void* packed,
                                           size_t packed_bytes);

/* Reads and checks the header of a packed buffer. */
NBIT_API nbit_status nbit_inspect(const void* packed, size_t packed_bytes, nbit_shape* shape);

/* Rows [count, K] of a weight packed with taps 1, as floats: y[i] = (code - zero) * scale of row rows[i].
 * NBIT_BAD_SHAPE for a row that the weight does not have. */
NBIT_API nbit_status nbit_lookup(const void* packed, size_t packed_bytes, const int64_t* rows, int64_t count,
                                 float* y);

/* ---- Threads ---- */

typedef struct nbit_pool nbit_pool;

/* `threads` counts the caller: a pool of 2 starts one thread. Returns NULL for threads < 1 or when none can
 * start. */
NBIT_API nbit_pool* nbit_pool_create(int threads);
NBIT_API void nbit_pool_destroy(nbit_pool* pool);
NBIT_API int nbit_pool_threads(const nbit_pool* pool); /* 1 for NULL */

/* ---- Layers ---- */

typedef enum {
    NBIT_ACTIVATION_NONE = 0,
    NBIT_ACTIVATION_GELU = 1 /* erf form, error below 1e-6 */
} nbit_activation;

/* Exactly one of x and xq is given. Float x with x_scale 0 is quantised row by row; with x_scale > 0 it is
 * calibrated: q = clip(rint(x / x_scale) + x_zero, -128, 127). xq is calibrated already: its value is (xq -
 * x_zero) * x_scale. Exactly one of y and sums is given. sums receives the integers sum_k
 * (code - zero) * (q - x_zero), times the step of each k for NBIT_SCALE_STEPS; not for other groups. */
typedef struct {
    const void* weight;
    size_t weight_bytes;
    int64_t rows;     /* M */
    const float* x;   /* [M, K], x_stride elements from row to row */
    const int8_t* xq; /* the same shape */
    int64_t x_stride;
    float x_scale;
    int32_t x_zero;    /* -128..127; 0 for x_scale 0 */
    const float* bias; /* [N] or NULL */
    nbit_activation activation;
    float* y;      /* [M, N], y_stride elements from row to row */
    int32_t* sums; /* the same shape */
    int64_t y_stride;
    const char* isa; /* NULL: nbit_default_isa() */
    nbit_pool* pool; /* NULL: the calling thread alone */
    void* workspace;
    size_t workspace_bytes;
} nbit_linear_call;

NBIT_API nbit_status nbit_linear_workspace(const nbit_linear_call* call, size_t* bytes);
NBIT_API nbit_status nbit_linear(const nbit_linear_call* call);

/* y[b, n, t] over x[b, c, t]; both dense. weight.depth = channels / groups * taps. A weight packed with taps
 * > 1 reads its windows in place; one packed flat (taps 1 in its shape) with the same depth is gathered
 * window by window. */
typedef struct {
    const void* weight;
    size_t weight_bytes;
    const float* x; /* [batch, channels, frames] */
    int64_t batch, channels, frames;
    int32_t stride, padding, dilation, groups;
    float x_scale; /* 0: quantised from the data; else calibrated as in a linear, padded with x_zero */
    int32_t x_zero;
    const float* bias;
    nbit_activation activation;
    float* y; /* [batch, N, frames_out] */
    const char* isa;
    nbit_pool* pool;
    void* workspace;
    size_t workspace_bytes;
} nbit_conv1d_call;

NBIT_API nbit_status nbit_conv1d_frames(const nbit_conv1d_call* call, int64_t* frames_out);
NBIT_API nbit_status nbit_conv1d_workspace(const nbit_conv1d_call* call, size_t* bytes);
NBIT_API nbit_status nbit_conv1d(const nbit_conv1d_call* call);

/* ---- The first layers over a waveform, and norms, in float ---- */

/* y[b, n, t] = bias[n] + sum_j weight[n, j] * x[b, t * stride + j]: a Conv1d with one input channel and no
 * padding. */
typedef struct {
    const float* x; /* [batch, frames] */
    int64_t batch, frames;
    const float* weight; /* [outputs, taps] */
    int32_t outputs, taps, stride;
    const float* bias; /* [outputs] or NULL */
    float* y;          /* [batch, outputs, frames_out] */
    const char* isa;
    nbit_pool* pool;
    void* workspace;
    size_t workspace_bytes;
} nbit_wave_conv1d_call;

NBIT_API nbit_status nbit_wave_conv1d_frames(const nbit_wave_conv1d_call* call, int64_t* frames_out);
NBIT_API nbit_status nbit_wave_conv1d_workspace(const nbit_wave_conv1d_call* call, size_t* bytes);
NBIT_API nbit_status nbit_wave_conv1d(const nbit_wave_conv1d_call* call);

/* Each channel of each item by its own mean and variance over time, then scaled and shifted: a group norm with
 * a group per channel. y may be x. */
typedef struct {
    const float* x; /* [batch, channels, frames] */
    int64_t batch, channels, frames;
    const float* scale; /* [channels] */
    const float* bias;  /* [channels] */
    float epsilon;
    nbit_activation activation;
    float* y; /* the shape of x */
    const char* isa;
    nbit_pool* pool;
} nbit_instance_norm_call;

NBIT_API nbit_status nbit_instance_norm(const nbit_instance_norm_call* call);

/* y[r] = x[r] + added[r], less its mean, over its standard deviation, scaled and shifted: a layer norm over what
 * a residual connection adds up. */
typedef struct {
    const float* x;     /* [rows, width] */
    const float* added; /* the shape of x, or NULL */
    int64_t rows;
    int32_t width;
    const float* scale; /* [width] */
    const float* bias;  /* [width] */
    float epsilon;
    float* y; /* the shape of x; may be x or added */
    const char* isa;
    nbit_pool* pool;
} nbit_layer_norm_call;

NBIT_API nbit_status nbit_layer_norm(const nbit_layer_norm_call* call);

/* ---- Attention, in float ---- */

/* Rows of every head of every item: row r of head h of item b starts at data + b * batch + h * head + r * row
 * elements, and its own elements are dense. */
typedef struct {
    const void* data;
    int64_t batch, head, row;
} nbit_heads;

/* y[b, m, h] = sum_t w[t] v[b, t, h], w = softmax over t of scale * (q[b, m, h] . k[b, t, h]) + mask[b, h, m, t],
 * for every query m of every head h. Scores of a few queries exist at a time. A score that is NaN, or a query
 * whose mask is -infinity for all keys, gives NaN. */
typedef struct {
    int64_t batch, queries, keys;
    int32_t heads, width; /* of a query, a key and a value */
    nbit_heads q;         /* floats; rows are queries */
    nbit_heads k;         /* rows are keys, or elements of all keys where keys_across */
    nbit_heads v;         /* rows are keys */
    int32_t keys_across;  /* 1: k[b, h] is [width, keys], else [keys, width] */
    int32_t halves;       /* 1: k and v hold IEEE halves, which takes keys_across; 0: floats */
    nbit_heads mask;      /* floats; rows are queries, their elements keys; data NULL: none */
    float scale;          /* above 0 */
    float* y;             /* [batch, queries, heads, width], dense */
    const char* isa;
    nbit_pool* pool;
    void* workspace;
    size_t workspace_bytes;
} nbit_attention_call;

NBIT_API nbit_status nbit_attention_workspace(const nbit_attention_call* call, size_t* bytes);
NBIT_API nbit_status nbit_attention(const nbit_attention_call* call);

#ifdef __cplusplus
}
#endif
#endif
