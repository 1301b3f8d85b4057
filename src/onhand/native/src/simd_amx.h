// AVX-512, and tiles with int8 (AMX) for products of many rows.
#pragma once

#include "simd_avx512.h"

namespace onhand::amx {

struct Simd : avx512::Simd {
  static constexpr bool kTiles = true;
  static constexpr int kFewRows = 8;  // up to here a tile of 16 rows would be mostly empty

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

  // Tiles 0 and 1 sum, 2 and 3 hold inputs, 4 and 5 codes, `depth` inputs each.
  static void begin_tiles(int depth) {
    alignas(64) uint8_t shapes[64] = {1};
    const auto shape = [&](int tile, int rows, int bytes) {
      shapes[48 + tile] = static_cast<uint8_t>(rows);
      shapes[16 + 2 * tile] = static_cast<uint8_t>(bytes);
    };
    for (int i = 0; i < 2; ++i) {
      shape(i, kRows, 64);
      shape(2 + i, kRows, depth);
      shape(4 + i, depth / kStep, 64);
    }
    written(shapes);
    _tile_loadconfig(shapes);
  }
  static void end_tiles() { _tile_release(); }

  template <int Sum, int Parts, bool Signed>
  static void multiply_tiles(const int8_t* inputs, size_t width, const uint8_t* codes,
                             int32_t* sums) {
    if constexpr (Sum == 0) {
      _tile_zero(0);
      for (int i = 0; i < Parts; ++i) {
        _tile_loadd(2, inputs + 64 * i, width);
        _tile_loadd(4, codes + 1024 * i, 64);
        if constexpr (Signed) _tile_dpbssd(0, 2, 4);
        else _tile_dpbsud(0, 2, 4);
      }
      _tile_stored(0, sums, 64);
    } else {
      _tile_zero(1);
      for (int i = 0; i < Parts; ++i) {
        _tile_loadd(3, inputs + 64 * i, width);
        _tile_loadd(5, codes + 1024 * i, 64);
        if constexpr (Signed) _tile_dpbssd(1, 3, 5);
        else _tile_dpbsud(1, 3, 5);
      }
      _tile_stored(1, sums, 64);
    }
  }
};

}  // namespace onhand::amx
