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

  // Tiles 0 to 3 sum, 4 and 5 hold inputs, 6 and 7 codes, `depth` inputs each.
  static void begin_tiles(int depth) {
    alignas(64) uint8_t shapes[64] = {1};
    const auto shape = [&](int tile, int rows, int bytes) {
      shapes[48 + tile] = static_cast<uint8_t>(rows);
      shapes[16 + 2 * tile] = static_cast<uint8_t>(bytes);
    };
    for (int i = 0; i < 4; ++i) shape(i, kRows, 64);
    for (int i = 0; i < 2; ++i) {
      shape(4 + i, kRows, depth);
      shape(6 + i, depth / kStep, 64);
    }
    written(shapes);
    _tile_loadconfig(shapes);
  }
  static void end_tiles() { _tile_release(); }

  // Numbers of tiles must be known to the compiler's front, so each sum has its own lines.
#define ONHAND_SUM(sum, left, right)                         \
  _tile_zero(sum);                                           \
  for (int i = 0; i < Parts; ++i) {                          \
    _tile_loadd(left, inputs + 64 * i, width);               \
    _tile_loadd(right, codes + 1024 * i, 64);                \
    if constexpr (Signed) _tile_dpbssd(sum, left, right);    \
    else _tile_dpbsud(sum, left, right);                     \
  }                                                          \
  _tile_stored(sum, sums, 64)
  template <int Sum, int Parts, bool Signed>
  static void multiply_tiles(const int8_t* inputs, size_t width, const uint8_t* codes,
                             int32_t* sums) {
    if constexpr (Sum == 0) { ONHAND_SUM(0, 4, 6); }
    else if constexpr (Sum == 1) { ONHAND_SUM(1, 5, 7); }
    else if constexpr (Sum == 2) { ONHAND_SUM(2, 4, 6); }
    else { ONHAND_SUM(3, 5, 7); }
  }
#undef ONHAND_SUM
};

}  // namespace onhand::amx
