// The packed weight of a node: read where the runtime mapped it, or copied once where it is not aligned.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include "ort.h"

namespace bitvox_ort {

class Weight {
  public:
    // Throws where the bytes are no packed weight, or one with another number of outputs than the node says.
    Weight(const Tensor& packed, int32_t outputs, const std::string& who);

    const void* data() const { return data_; }
    size_t bytes() const { return bytes_; }
    const nbit_shape& shape() const { return shape_; }

  private:
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    std::unique_ptr<void, Free> copy_;
    const void* data_;
    size_t bytes_;
    nbit_shape shape_{};
};

}  // namespace bitvox_ort
