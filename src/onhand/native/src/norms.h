// The norms of a decoder, over any `Simd`.
#pragma once

#include "model.h"
#include "vectors.h"

namespace onhand {

template <class Simd>
inline void norm(const Norm& by, float epsilon, const float* x, float* to, int n) {
  if (by.bias == nullptr) return rms_norm<Simd>(by.weight, epsilon, x, to, n);
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += x[i];
  const float mean = static_cast<float>(sum / n);
  for (int i = 0; i < n; ++i) to[i] = x[i] - mean;
  rms_norm<Simd>(by.weight, epsilon, to, to, n);
  for (int i = 0; i < n; ++i) to[i] += by.bias[i];
}

}  // namespace onhand
