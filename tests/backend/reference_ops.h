// The operations of a transformer, written to be obviously right: plain loops, double arithmetic, results
// rounded once where they are stored. Every backend is compared with it.
//
// Not thread-safe. Slow: for small shapes.
#pragma once

#include <cstdint>
#include <memory>

#include "worker/backend/backend.h"
#include "worker/backend/model_ops.h"

namespace accrue {

std::unique_ptr<ModelOps> CreateReferenceOps();

// Host memory and the operations above. state_ops may be null where a test needs none.
std::unique_ptr<Backend> CreateReferenceBackend(std::unique_ptr<StateOps> state_ops = nullptr);

// Element i of a tensor, and its rounding to the tensor's type (to nearest even).
double LoadElement(const Tensor& tensor, int64_t i);
void StoreElement(const Tensor& tensor, int64_t i, double value);
uint16_t RoundToBf16(float value);
float Bf16ToFloat(uint16_t value);
uint16_t RoundToF16(float value);
float F16ToFloat(uint16_t value);

}  // namespace accrue
