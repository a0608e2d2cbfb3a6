// The C API as seen from Python. Shapes, types and messages are checked in api.py; what arrives here is
// dense.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bitvox/nbit.h"

namespace nb = nanobind;

namespace {

template <class T, int rank>
using Input = nb::ndarray<const T, nb::ndim<rank>, nb::c_contig, nb::device::cpu>;
template <class T, int rank>
using Result = nb::ndarray<nb::numpy, T, nb::ndim<rank>>;

void require(nbit_status status) {
    if (status != NBIT_OK) throw nb::value_error(nbit_status_text(status));
}

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};

class AlignedBytes {
  public:
    void reserve(size_t bytes) {
        if (bytes <= size_) return;
        const size_t rounded = (bytes + NBIT_ALIGNMENT - 1) / NBIT_ALIGNMENT * NBIT_ALIGNMENT;
        memory_.reset(std::aligned_alloc(NBIT_ALIGNMENT, rounded));
        if (!memory_) throw std::bad_alloc();
        size_ = bytes;
    }
    void* data() const { return memory_.get(); }
    size_t size() const { return size_; }

  private:
    std::unique_ptr<void, Free> memory_;
    size_t size_ = 0;
};

// Each thread that calls keeps one workspace, as large as its largest call.
AlignedBytes& workspace(size_t bytes) {
    thread_local AlignedBytes memory;
    memory.reserve(bytes);
    return memory;
}

// One pool per thread count, lent to one call at a time. A forked child has none of its parent's threads,
// hence pools of its own.
class LentPool {
  public:
    explicit LentPool(int threads) {
        if (threads == 1) return;
        lock_ = std::unique_lock<std::mutex>(mutex());
        auto& pool = pools()[{getpid(), threads}];
        if (!pool) pool.reset(nbit_pool_create(threads));
        if (!pool) throw nb::value_error("num_threads: the system could not start that many threads");
        pool_ = pool.get();
    }
    nbit_pool* get() const { return pool_; }

  private:
    struct Destroy {
        void operator()(nbit_pool* pool) const { nbit_pool_destroy(pool); }
    };
    using Pools = std::map<std::pair<pid_t, int>, std::unique_ptr<nbit_pool, Destroy>>;
    static std::mutex& mutex() {
        static std::mutex instance;
        return instance;
    }
    static Pools& pools() {
        static Pools* instance =
            new Pools;  // never destroyed: threads may not be joined while a process exits
        return *instance;
    }
    std::unique_lock<std::mutex> lock_;
    nbit_pool* pool_ = nullptr;
};

template <class T, int rank>
Result<T, rank> make_result(const size_t (&shape)[rank]) {
    size_t count = 1;
    for (const size_t extent : shape) count *= extent;
    T* data = new T[count];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return Result<T, rank>(data, rank, shape, owner);
}

class Packed {
  public:
    explicit Packed(const nbit_shape& shape) : shape_(shape) {
        size_t bytes = 0;
        require(nbit_packed_bytes(&shape, &bytes));
        memory_.reserve(bytes);
    }
    // A copy of bytes that hold the layout already.
    explicit Packed(Input<uint8_t, 1> bytes) : shape_{} {
        memory_.reserve(bytes.size());
        std::memcpy(memory_.data(), bytes.data(), bytes.size());
        require(nbit_inspect(memory_.data(), memory_.size(), &shape_));
    }
    void* data() const { return memory_.data(); }
    size_t size() const { return memory_.size(); }
    const nbit_shape& shape() const { return shape_; }

  private:
    nbit_shape shape_;
    AlignedBytes memory_;
};

nbit_shape make_shape(int bits, int outputs, int depth, int group, int taps, int scale_type, bool has_zeros) {
    return {bits, outputs, depth, group, taps, scale_type, has_zeros};
}

using Scales = Input<float, 2>;
using Zeros = std::optional<Input<uint8_t, 2>>;

Packed pack(Input<uint8_t, 2> codes, Scales scales, Zeros zeros, int bits, int group, int taps,
            int scale_type) {
    Packed packed(
        make_shape(bits, int(codes.shape(0)), int(codes.shape(1)), group, taps, scale_type, bool(zeros)));
    require(nbit_pack(&packed.shape(), codes.data(), scales.data(), zeros ? zeros->data() : nullptr,
                      packed.data(), packed.size()));
    return packed;
}

Packed pack_from_planes(Input<uint8_t, 1> planes, Scales scales, Zeros zeros, int bits, int outputs,
                        int depth, int group, int taps, int scale_type) {
    Packed packed(make_shape(bits, outputs, depth, group, taps, scale_type, bool(zeros)));
    require(nbit_pack_from_planes(&packed.shape(), planes.data(), planes.size(), scales.data(),
                                  zeros ? zeros->data() : nullptr, packed.data(), packed.size()));
    return packed;
}

void run_linear(nbit_linear_call& call, int threads) {
    nb::gil_scoped_release release;
    LentPool pool(threads);
    call.pool = pool.get();
    size_t bytes = 0;
    require(nbit_linear_workspace(&call, &bytes));
    AlignedBytes& memory = workspace(bytes);
    call.workspace = memory.data();
    call.workspace_bytes = memory.size();
    require(nbit_linear(&call));
}

nbit_linear_call start_linear(const Packed& weight, size_t rows) {
    nbit_linear_call call{};
    call.weight = weight.data();
    call.weight_bytes = weight.size();
    call.rows = int64_t(rows);
    call.x_stride = weight.shape().depth;
    call.y_stride = weight.shape().outputs;
    return call;
}

using Bias = std::optional<Input<float, 1>>;

using Dense = nb::ndarray<nb::numpy, float, nb::ndim<2>, nb::c_contig>;

void linear(const Packed& weight, Input<float, 2> x, Bias bias, bool gelu, float x_scale, int x_zero,
            int threads, Dense y) {
    nbit_linear_call call = start_linear(weight, x.shape(0));
    call.x = x.data();
    call.x_scale = x_scale;
    call.x_zero = x_zero;
    call.bias = bias ? bias->data() : nullptr;
    call.activation = gelu ? NBIT_ACTIVATION_GELU : NBIT_ACTIVATION_NONE;
    call.y = y.data();
    run_linear(call, threads);
}

Result<float, 2> linear_int8(const Packed& weight, Input<int8_t, 2> xq, Bias bias, bool gelu, float x_scale,
                             int x_zero, int threads) {
    const size_t shape[] = {xq.shape(0), size_t(weight.shape().outputs)};
    Result<float, 2> y = make_result<float, 2>(shape);
    nbit_linear_call call = start_linear(weight, xq.shape(0));
    call.xq = xq.data();
    call.x_scale = x_scale;
    call.x_zero = x_zero;
    call.bias = bias ? bias->data() : nullptr;
    call.activation = gelu ? NBIT_ACTIVATION_GELU : NBIT_ACTIVATION_NONE;
    call.y = y.data();
    run_linear(call, threads);
    return y;
}

Result<int32_t, 2> linear_sums(const Packed& weight, Input<int8_t, 2> xq, int x_zero, int threads) {
    const size_t shape[] = {xq.shape(0), size_t(weight.shape().outputs)};
    Result<int32_t, 2> sums = make_result<int32_t, 2>(shape);
    nbit_linear_call call = start_linear(weight, xq.shape(0));
    call.xq = xq.data();
    call.x_zero = x_zero;
    call.sums = sums.data();
    run_linear(call, threads);
    return sums;
}

Result<float, 3> conv1d(const Packed& weight, Input<float, 3> x, Bias bias, int stride, int padding,
                        int dilation, int groups, bool gelu, float x_scale, int x_zero, int threads) {
    nbit_conv1d_call call{};
    call.weight = weight.data();
    call.weight_bytes = weight.size();
    call.x = x.data();
    call.batch = int64_t(x.shape(0));
    call.channels = int64_t(x.shape(1));
    call.frames = int64_t(x.shape(2));
    call.stride = stride;
    call.padding = padding;
    call.dilation = dilation;
    call.groups = groups;
    call.x_scale = x_scale;
    call.x_zero = x_zero;
    call.bias = bias ? bias->data() : nullptr;
    call.activation = gelu ? NBIT_ACTIVATION_GELU : NBIT_ACTIVATION_NONE;
    int64_t frames_out = 0;
    require(nbit_conv1d_frames(&call, &frames_out));
    const size_t shape[] = {x.shape(0), size_t(weight.shape().outputs), size_t(frames_out)};
    Result<float, 3> y = make_result<float, 3>(shape);
    call.y = y.data();
    nb::gil_scoped_release release;
    LentPool pool(threads);
    call.pool = pool.get();
    size_t bytes = 0;
    require(nbit_conv1d_workspace(&call, &bytes));
    AlignedBytes& memory = workspace(bytes);
    call.workspace = memory.data();
    call.workspace_bytes = memory.size();
    require(nbit_conv1d(&call));
    return y;
}

// Heads of a dense [batch, rows, heads, width], or of [batch, heads, rows, width] where they come first.
nbit_heads heads_in(const Input<float, 4>& array, bool heads_first) {
    const auto extent = [&](size_t i) { return int64_t(array.shape(i)); };
    const int64_t item = extent(1) * extent(2) * extent(3);
    if (heads_first) return {array.data(), item, extent(2) * extent(3), extent(3)};
    return {array.data(), item, extent(3), extent(2) * extent(3)};
}

using Mask = std::optional<Input<float, 4>>;

Result<float, 4> attention(Input<float, 4> q, Input<float, 4> k, Input<float, 4> v, Mask mask, float scale,
                           int threads) {
    const size_t shape[] = {q.shape(0), q.shape(1), q.shape(2), q.shape(3)};
    nbit_attention_call call{};
    call.batch = int64_t(q.shape(0));
    call.queries = int64_t(q.shape(1));
    call.keys = int64_t(k.shape(1));
    call.heads = int32_t(q.shape(2));
    call.width = int32_t(q.shape(3));
    call.q = heads_in(q, false);
    call.k = heads_in(k, false);
    call.v = heads_in(v, false);
    if (mask) call.mask = heads_in(*mask, true);
    call.scale = scale;
    Result<float, 4> y = make_result<float, 4>(shape);
    call.y = y.data();
    nb::gil_scoped_release release;
    LentPool pool(threads);
    call.pool = pool.get();
    size_t bytes = 0;
    require(nbit_attention_workspace(&call, &bytes));
    AlignedBytes& memory = workspace(bytes);
    call.workspace = memory.data();
    call.workspace_bytes = memory.size();
    require(nbit_attention(&call));
    return y;
}

Result<float, 2> lookup(const Packed& weight, Input<int64_t, 1> rows) {
    const size_t shape[] = {rows.shape(0), size_t(weight.shape().depth)};
    Result<float, 2> y = make_result<float, 2>(shape);
    require(nbit_lookup(weight.data(), weight.size(), rows.data(), int64_t(rows.shape(0)), y.data()));
    return y;
}

std::vector<std::string> available_isas() {
    const char* names[16];
    const int count = nbit_available_isas(names, 16);
    return {names, names + count};
}

std::optional<std::string> default_isa() {
    const char* name = nbit_default_isa();
    return name ? std::optional<std::string>(name) : std::nullopt;
}

}  // namespace

NB_MODULE(_native, m) {
    nb::class_<Packed>(m, "Packed")
        .def(nb::init<Input<uint8_t, 1>>(), nb::arg("bytes"))
        .def_prop_ro("nbytes", &Packed::size)
        .def_prop_ro("bits", [](const Packed& p) { return p.shape().bits; })
        .def_prop_ro("group", [](const Packed& p) { return p.shape().group; })
        .def_prop_ro("extents",
                     [](const Packed& p) {
                         const nbit_shape& s = p.shape();
                         return std::make_tuple(s.outputs, s.depth, s.taps);
                     })
        .def("__bytes__", [](const Packed& p) { return nb::bytes(p.data(), p.size()); });
    m.def("pack", &pack, nb::arg("codes"), nb::arg("scales"), nb::arg("zeros").none(), nb::arg("bits"),
          nb::arg("group"), nb::arg("taps"), nb::arg("scale_type"));
    m.def("pack_from_planes", &pack_from_planes, nb::arg("planes"), nb::arg("scales"),
          nb::arg("zeros").none(), nb::arg("bits"), nb::arg("outputs"), nb::arg("depth"), nb::arg("group"),
          nb::arg("taps"), nb::arg("scale_type"));
    m.def("linear", &linear, nb::arg("weight"), nb::arg("x"), nb::arg("bias").none(), nb::arg("gelu"),
          nb::arg("x_scale"), nb::arg("x_zero"), nb::arg("threads"), nb::arg("y"));
    m.def("linear_int8", &linear_int8, nb::arg("weight"), nb::arg("xq"), nb::arg("bias").none(),
          nb::arg("gelu"), nb::arg("x_scale"), nb::arg("x_zero"), nb::arg("threads"));
    m.def("linear_sums", &linear_sums, nb::arg("weight"), nb::arg("xq"), nb::arg("x_zero"),
          nb::arg("threads"));
    m.def("conv1d", &conv1d, nb::arg("weight"), nb::arg("x"), nb::arg("bias").none(), nb::arg("stride"),
          nb::arg("padding"), nb::arg("dilation"), nb::arg("groups"), nb::arg("gelu"), nb::arg("x_scale"),
          nb::arg("x_zero"), nb::arg("threads"));
    m.def("attention", &attention, nb::arg("q"), nb::arg("k"), nb::arg("v"), nb::arg("mask").none(),
          nb::arg("scale"), nb::arg("threads"));
    m.def("lookup", &lookup, nb::arg("weight"), nb::arg("rows"));
    m.def("available_isas", &available_isas);
    m.def("default_isa", &default_isa);
}
