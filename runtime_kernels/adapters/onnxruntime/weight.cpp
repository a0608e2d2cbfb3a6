#include "weight.h"

#include <cstdint>
#include <cstring>
#include <new>

namespace bitvox_ort {

Weight::Weight(const Tensor& packed, int32_t outputs, const std::string& who)
    : data_(packed.data), bytes_(size_t(packed.count())) {
    if (reinterpret_cast<uintptr_t>(data_) % NBIT_ALIGNMENT) {
        const size_t rounded = (bytes_ + NBIT_ALIGNMENT - 1) / NBIT_ALIGNMENT * NBIT_ALIGNMENT;
        copy_.reset(std::aligned_alloc(NBIT_ALIGNMENT, rounded));
        if (!copy_) throw std::bad_alloc();
        std::memcpy(copy_.get(), data_, bytes_);
        data_ = copy_.get();
    }
    require(nbit_inspect(data_, bytes_, &shape_), who);
    if (shape_.outputs != outputs) {
        throw Error(ORT_INVALID_ARGUMENT, who + ": has " + std::to_string(shape_.outputs) +
                                              " outputs, its node says " + std::to_string(outputs));
    }
}

}  // namespace bitvox_ort
