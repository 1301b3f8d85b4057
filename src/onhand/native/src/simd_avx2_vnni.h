// Sixteen lanes with AVX2 and AVX-VNNI: as AVX2, and four products in one instruction.
#pragma once

#include "simd_avx2.h"

namespace onhand::avx2_vnni {

struct Simd : avx2::Simd {
  template <int Bits>
  static avx2::Ints dot(avx2::Ints sum, avx2::Line codes, const int8_t* inputs) {
    int32_t four;
    std::memcpy(&four, inputs, 4);
    const __m256i all = _mm256_set1_epi32(four);
    return {_mm256_dpbusd_avx_epi32(sum.a, codes.a, all),
            _mm256_dpbusd_avx_epi32(sum.b, codes.b, all)};
  }
};

}  // namespace onhand::avx2_vnni
