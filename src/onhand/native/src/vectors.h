// Functions of rows of floats that several parts of a step need.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "format.h"

namespace onhand {

inline float fast_exp(float x) {
  // 2^r * 2^f with f in -0.5 .. 0.5 by a polynomial, to about 1e-7 of the result.
  x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
  const float t = x * 1.44269504f;
  // Adding 1.5 * 2^23 rounds to a whole number, which the lowest bits then hold.
  const float shifted = t + 0x1.8p23f;
  const float r = shifted - 0x1.8p23f;
  const float f = t - r;
  float p = 1.8775767e-3f;
  p = p * f + 8.9893397e-3f;
  p = p * f + 5.5826318e-2f;
  p = p * f + 2.4015361e-1f;
  p = p * f + 6.9315308e-1f;
  p = p * f + 0.99999994f;
  uint32_t bits, power;
  std::memcpy(&bits, &p, 4);
  std::memcpy(&power, &shifted, 4);
  bits += power << 23;
  std::memcpy(&p, &bits, 4);
  return p;
}

// The same on sixteen lanes.
template <class Simd>
inline typename Simd::Floats exponential(typename Simd::Floats x) {
  x = Simd::larger(Simd::all(-87.0f), Simd::smaller(Simd::all(88.0f), x));
  const auto r = Simd::rounded(Simd::times(x, 1.44269504f));
  const auto f = Simd::fused(x, Simd::all(1.44269504f), Simd::times(r, -1.0f));
  auto p = Simd::all(1.8775767e-3f);
  p = Simd::fused(p, f, Simd::all(8.9893397e-3f));
  p = Simd::fused(p, f, Simd::all(5.5826318e-2f));
  p = Simd::fused(p, f, Simd::all(2.4015361e-1f));
  p = Simd::fused(p, f, Simd::all(6.9315308e-1f));
  p = Simd::fused(p, f, Simd::all(0.99999994f));
  return Simd::times(p, Simd::power_of_two(r));
}

// cap * tanh(x / cap), as 1 - 2 / (exp(2 x / cap) + 1).
template <class Simd>
inline typename Simd::Floats capped(typename Simd::Floats x, float cap) {
  const auto power = exponential<Simd>(Simd::times(x, 2 / cap));
  const auto rest = Simd::over(Simd::all(-2.0f), Simd::fused(power, Simd::all(1.0f), Simd::all(1.0f)));
  return Simd::times(Simd::fused(rest, Simd::all(1.0f), Simd::all(1.0f)), cap);
}

// The sum of products, sixteen chains side by side and then their sum from first to last.
template <class Simd>
inline float dot(const float* x, const float* y, int n) {
  auto lanes = Simd::zero();
  int i = 0;
  for (; i + kRows <= n; i += kRows) lanes = Simd::fused(Simd::load(x + i), Simd::load(y + i), lanes);
  float part[kRows], sum = 0;
  Simd::store(part, lanes);
  for (float one : part) sum += one;
  for (; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

template <class Simd>
inline void rms_norm(const float* weight, float epsilon, const float* x, float* to, int n) {
  const float scale = 1 / std::sqrt(dot<Simd>(x, x, n) / n + epsilon);
  for (int i = 0; i < n; ++i) to[i] = x[i] * scale * weight[i];
}

}  // namespace onhand
