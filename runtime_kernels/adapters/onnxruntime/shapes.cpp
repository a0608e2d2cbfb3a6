#include "shapes.h"

#include <atomic>
#include <memory>

namespace bitvox_ort {

InferredShape Inference::x() const {
    OrtTensorTypeAndShapeInfo* info = nullptr;  // belongs to the context
    require(api_, api_.ShapeInferContext_GetInputTypeShape(context_, 0, &info));
    size_t rank = 0;
    require(api_, api_.GetDimensionsCount(info, &rank));
    InferredShape shape;
    shape.extents.resize(rank);
    require(api_, api_.GetDimensions(info, shape.extents.data(), rank));
    std::vector<const char*> names(rank);
    require(api_, api_.GetSymbolicDimensions(info, names.data(), rank));
    for (const char* name : names) shape.symbols.emplace_back(name ? name : "");
    return shape;
}

int64_t Inference::integer(const char* attribute) const {
    const OrtOpAttr* raw = nullptr;
    require(api_, api_.ShapeInferContext_GetAttribute(context_, attribute, &raw));
    int64_t value = 0;
    size_t bytes = 0;
    require(api_, api_.ReadOpAttr(raw, ORT_OP_ATTR_INT, &value, sizeof value, &bytes));
    return value;
}

void Inference::set_output(InferredShape shape) const {
    // The runtime would take an unnamed unknown for the number -1. A name of its own equals no other extent.
    static std::atomic<uint64_t> unnamed{0};
    for (size_t i = 0; i < shape.extents.size(); ++i) {
        if (shape.extents[i] < 0 && shape.symbols[i].empty())
            shape.symbols[i] = "bitvox." + std::to_string(unnamed++);
    }
    OrtTensorTypeAndShapeInfo* raw = nullptr;
    require(api_, api_.CreateTensorTypeAndShapeInfo(&raw));
    const auto release = [this](OrtTensorTypeAndShapeInfo* info) { api_.ReleaseTensorTypeAndShapeInfo(info); };
    const std::unique_ptr<OrtTensorTypeAndShapeInfo, decltype(release)> info(raw, release);
    require(api_, api_.SetTensorElementType(raw, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT));
    require(api_, api_.SetDimensions(raw, shape.extents.data(), shape.extents.size()));
    std::vector<const char*> names;
    for (const std::string& symbol : shape.symbols) names.push_back(symbol.c_str());
    require(api_, api_.SetSymbolicDimensions(raw, names.data(), names.size()));
    require(api_, api_.ShapeInferContext_SetOutputTypeShape(context_, 0, raw));
}

}  // namespace bitvox_ort
