// AVX-512, and tiles with int8 and bf16 (AMX) for products of many rows.
#pragma once

#include "simd_avx512.h"

namespace onhand::amx {

struct Simd : avx512::Simd {
  static constexpr bool kTiles = true;
  static constexpr int kFewRows = 8;  // of which each tile would hold most for nothing

  // (v >> shift) & mask of bytes by one instruction: bit i of a result is bit i + shift.
  static Line part(Line v, int shift, int mask) {
    if (shift == 0) return avx512::Simd::part(v, 0, mask);
    uint64_t matrix = 0;
    for (int i = 0; i < 8 && (mask >> i & 1) != 0; ++i)
      matrix |= uint64_t{1} << (8 * (7 - i) + i + shift);
    return _mm512_gf2p8affine_epi64_epi8(v, _mm512_set1_epi64(static_cast<int64_t>(matrix)), 0);
  }

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

  // Two vectors as 32 numbers of bf16, rounded to nearest.
  static void keep_bf16(uint16_t* to, Floats low, Floats high) {
    const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    std::memcpy(to, &both, sizeof both);
  }
  // A line of codes as weights, code * scale + below: inputs 0 and 1 of sixteen outputs, two and
  // two beside each other, and then inputs 2 and 3.
  static void keep_pairs(uint8_t* to, Line codes, Floats scales, Floats below) {
    const auto weights = [&](int shift) {
      const auto one = _mm512_and_si512(_mm512_srli_epi32(codes, shift), _mm512_set1_epi32(255));
      return fused(real(one), scales, below);
    };
    for (int i = 0; i < 2; ++i)
      keep_beside(to + kLine * i, weights(16 * i), weights(16 * i + 8));
  }
  // Two vectors as pairs of bf16, which is how products take two of their inputs.
  static void keep_beside(uint8_t* to, Floats first, Floats second) {
    alignas(64) static constexpr uint16_t kOrder[32] = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512bh behind = _mm512_cvtne2ps_pbh(second, first);
    __m512i bits;
    std::memcpy(&bits, &behind, sizeof bits);
    _mm512_store_si512(to, _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), bits));
  }
  // 32 rows, given by halves, times two tiles of outputs, over n times 32 inputs, added to `from`
  // where that is not null.
  static void multiply_bf16(const uint16_t* upper, const uint16_t* lower, int n,
                            const uint8_t* panel, const float* from, size_t from_stride, float* to,
                            size_t to_stride) {
    if (from == nullptr) {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    } else {
      const float* below = from + kRows * from_stride;
      _tile_loadd(0, from, 4 * from_stride);
      _tile_loadd(1, from + kRows, 4 * from_stride);
      _tile_loadd(2, below, 4 * from_stride);
      _tile_loadd(3, below + kRows, 4 * from_stride);
    }
    for (int i = 0; i < n; ++i, panel += 2048, upper += 512, lower += 512) {
      _tile_loadd(6, panel, 64);
      _tile_loadd(4, upper, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, panel + 1024, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, lower, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    float* below = to + kRows * to_stride;
    _tile_stored(0, to, 4 * to_stride);
    _tile_stored(1, to + kRows, 4 * to_stride);
    _tile_stored(2, below, 4 * to_stride);
    _tile_stored(3, below + kRows, 4 * to_stride);
  }
};

}  // namespace onhand::amx
