// The entry points of the library: RegisterCustomOps, which ONNX Runtime looks for, and the path in use.
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "attention.h"
#include "instance_norm.h"
#include "nbit_conv1d.h"
#include "nbit_linear.h"
#include "nbit_lookup.h"

#if defined(_WIN32)
#define BITVOX_EXPORT extern "C" __declspec(dllexport)
#else
#define BITVOX_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace bitvox_ort {
namespace {

constexpr const char* kDomain = "bitvox";
// A library that registers operators cannot see the session's thread count; whoever sets it says it here too.
constexpr const char* kThreadsEntry = "bitvox.intra_op_num_threads";

// The C table of one operator, and what its callbacks need.
template <class Kernel>
struct Operator : OrtCustomOp {
    const OrtApi& api;
    Threads& threads;

    // A kernel, and the table that its callbacks report through.
    struct Instance {
        const OrtApi& api;
        Kernel kernel;
    };

    Operator(const OrtApi& table, Threads& pool) : OrtCustomOp{}, api(table), threads(pool) {
        version = ORT_API_VERSION;
        GetName = [](const OrtCustomOp*) { return Kernel::kName; };
        GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
        GetInputTypeCount = [](const OrtCustomOp*) { return Kernel::kInputs; };
        GetInputType = [](const OrtCustomOp*, size_t index) { return Kernel::input_type(index); };
        GetInputCharacteristic = [](const OrtCustomOp*, size_t index) {
            return Kernel::optional(index) ? INPUT_OUTPUT_OPTIONAL : INPUT_OUTPUT_REQUIRED;
        };
        GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
        GetOutputTypeCount = [](const OrtCustomOp*) { return size_t(1); };
        GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
        GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
        CreateKernelV2 = create;
        KernelComputeV2 = compute;
        KernelDestroy = [](void* kernel) { delete static_cast<Instance*>(kernel); };
        InferOutputShapeFn = infer;
    }

    static OrtStatus* create(const OrtCustomOp* op, const OrtApi* api, const OrtKernelInfo* info,
                             void** kernel) {
        const Operator& self = *static_cast<const Operator*>(op);
        return guarded(*api, [&] { *kernel = new Instance{self.api, {self.api, info, self.threads}}; });
    }

    static OrtStatus* compute(void* kernel, OrtKernelContext* context) {
        const Instance& self = *static_cast<const Instance*>(kernel);
        return guarded(self.api, [&] { self.kernel.compute(Run(self.api, context)); });
    }

    static OrtStatus* infer(const OrtCustomOp* op, OrtShapeInferContext* context) {
        const OrtApi& api = static_cast<const Operator*>(op)->api;
        return guarded(api, [&] { Kernel::infer(Inference(api, context)); });
    }
};

// The operators for one thread count. Sessions point at them, so they live as long as the process.
struct Registry {
    Threads threads;
    Operator<NBitLinear> linear;
    Operator<NBitConv1d> conv1d;
    Operator<NBitLookup> lookup;
    Operator<InstanceNorm1d> norm;
    Operator<Attention> attention;
    Operator<CachedAttention> cached_attention;
    OrtCustomOpDomain* domain = nullptr;

    Registry(const OrtApi& api, int count)
        : threads(count),
          linear(api, threads),
          conv1d(api, threads),
          lookup(api, threads),
          norm(api, threads),
          attention(api, threads),
          cached_attention(api, threads) {
        require(api, api.CreateCustomOpDomain(kDomain, &domain));
        for (OrtCustomOp* op : {static_cast<OrtCustomOp*>(&linear), static_cast<OrtCustomOp*>(&conv1d),
                                static_cast<OrtCustomOp*>(&lookup), static_cast<OrtCustomOp*>(&norm),
                                static_cast<OrtCustomOp*>(&attention),
                                static_cast<OrtCustomOp*>(&cached_attention)})
            require(api, api.CustomOpDomain_Add(domain, op));
    }
};

Registry& registry(const OrtApi& api, int threads) {
    static std::mutex mutex;
    static auto* made = new std::map<int, std::unique_ptr<Registry>>;
    const std::lock_guard<std::mutex> lock(mutex);
    std::unique_ptr<Registry>& entry = (*made)[threads];
    if (!entry) entry = std::make_unique<Registry>(api, threads);
    return *entry;
}

int thread_count(const OrtApi& api, const OrtSessionOptions* options) {
    int present = 0;
    require(api, api.HasSessionConfigEntry(options, kThreadsEntry, &present));
    if (!present) return 1;
    char text[16] = {};
    size_t size = sizeof text;
    require(api, api.GetSessionConfigEntry(options, kThreadsEntry, text, &size));
    char* end = nullptr;
    const long count = std::strtol(text, &end, 10);
    if (*end || count < 1 || count > 256)
        throw Error(ORT_INVALID_ARGUMENT, std::string(kThreadsEntry) + ": '" + text + "'; use 1 to 256");
    return int(count);
}

}  // namespace
}  // namespace bitvox_ort

BITVOX_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
    const OrtApi* api = base->GetApi(ORT_API_VERSION);
    if (!api) {  // a status needs a table of functions: the oldest that has everything to make one
        const OrtApi* oldest = base->GetApi(1);
        return oldest->CreateStatus(ORT_FAIL, "bitvox: this ONNX Runtime is older than the headers that "
                                              "the operator library was built with");
    }
    return bitvox_ort::guarded(*api, [&] {
        const int threads = bitvox_ort::thread_count(*api, options);
        bitvox_ort::require(
            *api, api->AddCustomOpDomain(options, bitvox_ort::registry(*api, threads).domain));
    });
}

// The instruction set that the operators use here, as nbit_default_isa says it; null where BITVOX_ISA names
// none.
BITVOX_EXPORT const char* bitvox_isa(void) { return nbit_default_isa(); }
