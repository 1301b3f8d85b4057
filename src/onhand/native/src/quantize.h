// Rows of floats as int8 codes, one scale for each group.
#pragma once

#include <cmath>
#include <cstring>

#include "format.h"

namespace onhand {

// Round groups `begin` to `end` of a row of `n` floats, as the inputs of a matrix; what the last
// group lacks is zero.
template <class Simd>
inline void quantize(const float* x, int n, const Packed& w, const Inputs& to, int begin,
                     int end) {
  const int group = w.format.group;
  float padded[128];
  for (int g = begin; g < end; ++g) {
    const float* from = x + g * group;
    if ((g + 1) * group > n) {
      const int there = n - g * group;
      for (int i = 0; i < group; ++i) padded[i] = i < there ? from[i] : 0.0f;
      from = padded;
    }
    // What is no number counts as infinite: of a comparison with it, the second is kept.
    const auto infinite = Simd::all(INFINITY);
    auto most = Simd::zero();
    for (int i = 0; i < group; i += kRows) {
      const auto one = Simd::load(from + i);
      const auto size = Simd::larger(one, Simd::times(one, -1.0f));
      most = Simd::larger(most, Simd::smaller(size, infinite));
    }
    const float top = Simd::largest(most);
    int8_t* codes = to.codes + g * group;
    to.scales[g] = top / 127.0f;
    // The inverse of less would overflow; what is not finite makes the scale so too.
    if (top < 0x1p-119f || top == INFINITY) {
      std::memset(codes, 0, group);
      to.starts[g] = 0;
      to.minus_sums[g] = 0;
      continue;
    }
    const float inverse = 127.0f / top;
    auto sums = Simd::zero();  // of whole numbers, which floats hold in any order
    for (int i = 0; i < group; i += kRows) {
      const auto whole = Simd::rounded(Simd::times(Simd::load(from + i), inverse));
      Simd::keep_codes(codes + i, whole);
      sums = Simd::fused(whole, Simd::all(1.0f), sums);
    }
    const float sum = Simd::total(sums);
    to.starts[g] = -w.format.middle() * static_cast<int32_t>(sum);
    to.minus_sums[g] = -sum;
  }
}

}  // namespace onhand
