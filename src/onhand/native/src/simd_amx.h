// AVX-512, and tiles with int8 (AMX) for products of many rows.
#pragma once

#include "simd_avx512.h"

namespace onhand::amx {

struct Simd : avx512::Simd {
  static constexpr bool kTiles = true;
  static constexpr int kFewRows = 8;  // of which each tile would hold most for nothing

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

  // Tiles 0 to 3 sum, 4 and 5 hold inputs of some rows, 6 and 7 codes, `depth` inputs each.
  static void begin_tiles(int rows, int depth) {
    alignas(64) uint8_t shapes[64] = {1};
    const auto shape = [&](int tile, int n, int bytes) {
      shapes[48 + tile] = static_cast<uint8_t>(n);
      shapes[16 + 2 * tile] = static_cast<uint8_t>(bytes);
    };
    for (int i = 0; i < 4; ++i) shape(i, rows, 64);
    for (int i = 0; i < 2; ++i) {
      shape(4 + i, rows, depth);
      shape(6 + i, depth / kStep, 64);
    }
    written(shapes);
    _tile_loadconfig(shapes);
  }
  static void end_tiles() { _tile_release(); }

  // Numbers of tiles must be known to the compiler's front, so they are arguments of macros.
#define ONHAND_ADD(sum, inputs, codes, at)                   \
  _tile_loadd(codes, at, 64);                                \
  if constexpr (Signed) _tile_dpbssd(sum, inputs, codes);    \
  else _tile_dpbsud(sum, inputs, codes)
#define ONHAND_SUM(left, right, at)                          \
  _tile_zero(left);                                          \
  _tile_zero(right);                                         \
  ONHAND_ADD(left, 4, 6, at);                                \
  ONHAND_ADD(right, 4, 7, (at) + tile_bytes);                \
  if constexpr (Parts == 2) {                                \
    ONHAND_ADD(left, 5, 6, (at) + 1024);                     \
    ONHAND_ADD(right, 5, 7, (at) + tile_bytes + 1024);       \
  }
  // One group of rows by four tiles of outputs. Sums are stored while others are made, which
  // takes less time than at once: the last two are those of the group `before`.
  template <int Parts, bool Signed>
  static void multiply_panel(const int8_t* inputs, size_t width, const uint8_t* codes,
                             int tile_bytes, int32_t* sums, bool before) {
    _tile_loadd(4, inputs, width);
    if constexpr (Parts == 2) _tile_loadd(5, inputs + 64, width);
    ONHAND_SUM(0, 1, codes)
    if (before) store_rest(sums);
    ONHAND_SUM(2, 3, codes + 2 * tile_bytes)
    _tile_stored(0, sums, 64);
    _tile_stored(1, sums + 256, 64);
  }
#undef ONHAND_SUM
#undef ONHAND_ADD
  // The sums that are left, to before `end`.
  static void store_rest(int32_t* end) {
    _tile_stored(2, end - 512, 64);
    _tile_stored(3, end - 256, 64);
  }
};

}  // namespace onhand::amx
