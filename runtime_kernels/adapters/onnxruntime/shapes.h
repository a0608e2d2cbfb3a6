// Shapes of outputs, inferred while the runtime still optimises the graph: without them its own fusions and
// its reuse of memory would stop at every node of ours.
#pragma once

#include <string>
#include <vector>

#include "ort.h"

namespace bitvox_ort {

struct InferredShape {
    std::vector<int64_t> extents;      // -1 where unknown
    std::vector<std::string> symbols;  // name of an unknown extent, or empty
};

// One node during inference.
class Inference {
  public:
    Inference(const OrtApi& api, OrtShapeInferContext* context) : api_(api), context_(context) {}

    InferredShape x() const;  // empty where nothing is known
    int64_t integer(const char* attribute) const;
    void set_output(InferredShape shape) const;  // names what has no name

  private:
    const OrtApi& api_;
    OrtShapeInferContext* context_;
};

}  // namespace bitvox_ort
