// Codes of a block as the lines that dot products take, over any `Simd`.
#pragma once

#include "format.h"

namespace onhand {

constexpr size_t kReach = 2048;  // bytes: into the next page early, so that it streams in time

// How far to fetch ahead of byte `at` of a tile, of several that stream beside each other: what
// is past the end of the tile belongs to its neighbour, which has been read, so on to the next
// tile that comes in its place.
inline size_t reach(size_t at, size_t tile_bytes, int tiles) {
  return at + kReach < tile_bytes ? kReach : kReach + (tiles - 1) * tile_bytes;
}

// Call use(step, line) for every step of a block of codes, and fetch what lies `ahead` of it.
template <class Simd, int Bits, int Group, class Use>
ONHAND_INLINE void unpack(const uint8_t* codes, size_t ahead, Use&& use) {
  Simd::prefetch(codes + Group * kRows * Bits / 8 + ahead);  // the line with the scales
  if constexpr (Bits == 8) {
    for (int i = 0; i < Group / 4; ++i) {
      Simd::prefetch(codes + kLine * i + ahead);
      use(i, Simd::line(codes + kLine * i));
    }
  } else if constexpr (Bits == 4) {
    for (int i = 0; i < Group / 8; ++i) {
      Simd::prefetch(codes + kLine * i + ahead);
      const auto two = Simd::line(codes + kLine * i);
      use(2 * i, Simd::part(two, 0, 15));
      use(2 * i + 1, Simd::part(two, 4, 15));
    }
  } else if constexpr (Bits == 2) {
    for (int i = 0; i < Group / 16; ++i) {
      Simd::prefetch(codes + kLine * i + ahead);
      const auto four = Simd::line(codes + kLine * i);
      for (int j = 0; j < 4; ++j) use(4 * i + j, Simd::part(four, 2 * j, 3));
    }
  } else {
    static_assert(Bits == 3);
    for (int i = 0; i < Group / 32; ++i) {
      const uint8_t* at = codes + 3 * kLine * i;
      for (int j = 0; j < 3; ++j) Simd::prefetch(at + kLine * j + ahead);
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
