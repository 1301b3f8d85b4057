// AVX-512, and tiles with int8 (AMX) for products of many rows.
#pragma once

#include "simd_avx512.h"

namespace onhand::amx {

struct Simd : avx512::Simd {
  static constexpr bool kTiles = true;
  static constexpr int kFewRows = 16;  // of which each tile would hold most for nothing

  static Line minus(Line v, int n) {
    return _mm512_sub_epi8(v, _mm512_set1_epi8(static_cast<char>(n)));
  }
  static Ints load_ints(const int32_t* p) { return _mm512_load_si512(p); }

  // Compilers do not know what tile instructions read; this keeps stores before them.
  static void written([[maybe_unused]] const void* p) {
#if defined(__GNUC__)
    asm volatile("" : : "r"(p) : "memory");
#endif
  }

  // Tile 0 sums, tile 1 holds inputs and tile 2 codes, `depth` inputs each.
  static void begin_tiles(int depth) {
    alignas(64) uint8_t shapes[64] = {1};
    const auto shape = [&](int tile, int rows, int bytes) {
      shapes[48 + tile] = static_cast<uint8_t>(rows);
      shapes[16 + 2 * tile] = static_cast<uint8_t>(bytes);
    };
    shape(0, kRows, 64);
    shape(1, kRows, depth);
    shape(2, depth / kStep, 64);
    written(shapes);
    _tile_loadconfig(shapes);
  }
  static void end_tiles() { _tile_release(); }

  // The sums of `Parts` depths of 16 rows of inputs, `width` apart, times as many codes.
  template <int Parts, bool Signed>
  static void multiply_tiles(const int8_t* inputs, size_t width, const uint8_t* codes,
                             int32_t* sums) {
    _tile_zero(0);
    for (int i = 0; i < Parts; ++i) {
      _tile_loadd(1, inputs + 64 * i, width);
      _tile_loadd(2, codes + 1024 * i, 64);
      if constexpr (Signed) _tile_dpbssd(0, 1, 2);
      else _tile_dpbsud(0, 1, 2);
    }
    _tile_stored(0, sums, 64);
  }
};

}  // namespace onhand::amx
