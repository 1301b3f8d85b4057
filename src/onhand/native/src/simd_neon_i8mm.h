// Sixteen lanes with NEON and i8mm: as NEON, with dot products of unsigned codes.
#pragma once

#include "simd_neon.h"

namespace onhand::neon_i8mm {

struct Simd : neon::Simd {
  template <int Bits>
  static neon::Ints dot(neon::Ints sum, const neon::Line& codes, const int8_t* inputs) {
    const int8x16_t all = neon::Simd::four(inputs);
    for (int i = 0; i < 4; ++i) sum.v[i] = vusdotq_s32(sum.v[i], codes.v[i], all);
    return sum;
  }
};

}  // namespace onhand::neon_i8mm
