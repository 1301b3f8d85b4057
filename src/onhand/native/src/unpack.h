// Codes of a block as the lines that dot products take, over any `Simd`.
#pragma once

#include "format.h"

#if defined(__GNUC__)
#define ONHAND_INLINE inline __attribute__((always_inline))
#else
#define ONHAND_INLINE inline
#endif

namespace onhand {

// Call use(step, line) for every step of a block of codes.
template <class Simd, int Bits, int Group, class Use>
ONHAND_INLINE void unpack(const uint8_t* codes, Use&& use) {
  constexpr int kAhead = 1024;  // bytes: into the next page early, so that it streams in time
  if constexpr (Bits == 8) {
    for (int i = 0; i < Group / 4; ++i) {
      Simd::prefetch(codes + kLine * i + kAhead);
      use(i, Simd::line(codes + kLine * i));
    }
  } else if constexpr (Bits == 4) {
    for (int i = 0; i < Group / 8; ++i) {
      Simd::prefetch(codes + kLine * i + kAhead);
      const auto two = Simd::line(codes + kLine * i);
      use(2 * i, Simd::part(two, 0, 15));
      use(2 * i + 1, Simd::part(two, 4, 15));
    }
  } else if constexpr (Bits == 2) {
    for (int i = 0; i < Group / 16; ++i) {
      Simd::prefetch(codes + kLine * i + kAhead);
      const auto four = Simd::line(codes + kLine * i);
      for (int j = 0; j < 4; ++j) use(4 * i + j, Simd::part(four, 2 * j, 3));
    }
  } else {
    static_assert(Bits == 3);
    for (int i = 0; i < Group / 32; ++i) {
      const uint8_t* at = codes + 3 * kLine * i;
      for (int j = 0; j < 3; ++j) Simd::prefetch(at + kLine * j + kAhead);
      const auto upper = Simd::line(at + 2 * kLine);
      for (int half = 0; half < 2; ++half) {
        const auto four = Simd::line(at + kLine * half);
        for (int j = 0; j < 4; ++j)
          use(8 * i + 4 * half + j, Simd::third(Simd::part(four, 2 * j, 3), upper, 4 * half + j));
      }
    }
  }
}

}  // namespace onhand
