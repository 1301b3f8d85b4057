// Sixteen lanes with AVX2, FMA and F16C: two halves of eight.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "format.h"

namespace onhand::avx2 {

struct Floats { __m256 a, b; };
struct Ints { __m256i a, b; };
struct Line { __m256i a, b; };

struct Simd {
  using Floats = avx2::Floats;
  using Ints = avx2::Ints;
  using Line = avx2::Line;
  static constexpr int kBlock = 4;   // rows in one block of a large product
  static constexpr int kStream = 4;  // rows beside each other while a tile streams
  static constexpr int kFewRows = 12;  // more take the way of many
  static constexpr bool kStreams = true;  // tiles beside each other, where memory is what waits
  static constexpr bool kTiles = false, kPairs = false;
  static constexpr int kQueries = 6, kSide = 1;  // queries, and vectors of keys, of a block

  static Floats zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Floats load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static void store(float* p, Floats v) { _mm256_storeu_ps(p, v.a); _mm256_storeu_ps(p + 8, v.b); }
  static __m128i raw(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static Floats halves(const uint8_t* p) {
    return {_mm256_cvtph_ps(raw(p)), _mm256_cvtph_ps(raw(p + 16))};
  }
  static Floats bytes(const uint8_t* p) {
    const __m128i all = raw(p);
    return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(all)),
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(all, 8)))};
  }
  static Floats fused(Floats x, Floats y, Floats z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
  }
  static Floats times(Floats x, float y) { return times(x, all(y)); }
  static Floats times(Floats x, Floats y) {
    return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
  }
  static Floats all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Floats real(Ints x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
  static Ints ints(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static Line line(const uint8_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }
  static void keep(uint8_t* p, Line v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v.a);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), v.b);
  }
  static __m256i part(__m256i v, int shift, int mask) {
    const __m256i moved = shift == 0 ? v : _mm256_srli_epi16(v, shift);
    return _mm256_and_si256(moved, _mm256_set1_epi8(static_cast<char>(mask)));
  }
  static Line part(Line v, int shift, int mask) {
    return {part(v.a, shift, mask), part(v.b, shift, mask)};
  }
  static __m256i third(__m256i low, __m256i high, int shift) {
    const __m256i moved = shift < 2    ? _mm256_slli_epi16(high, 2 - shift)
                          : shift == 2 ? high
                                       : _mm256_srli_epi16(high, shift - 2);
    return _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi8(4)));
  }
  static Line third(Line low, Line high, int shift) {
    return {third(low.a, high.a, shift), third(low.b, high.b, shift)};
  }
  template <int Bits>
  static __m256i dot(__m256i sum, __m256i codes, __m256i inputs) {
    const __m256i ones = _mm256_set1_epi16(1);
    if constexpr (Bits < 8) {
      // Sums of two products of codes up to 15 and inputs up to 127 fit 16 bits.
      return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, inputs), ones));
    } else {
      // Codes up to 255 do not: even and odd bytes apart, widened to 16 bits.
      const __m256i low = _mm256_set1_epi16(0xff);
      const __m256i even = _mm256_madd_epi16(
          _mm256_and_si256(codes, low), _mm256_srai_epi16(_mm256_slli_epi16(inputs, 8), 8));
      const __m256i odd =
          _mm256_madd_epi16(_mm256_srli_epi16(codes, 8), _mm256_srai_epi16(inputs, 8));
      return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
    }
  }
  template <int Bits>
  static Ints dot(Ints sum, Line codes, const int8_t* inputs) {
    int32_t four;
    std::memcpy(&four, inputs, 4);
    const __m256i all = _mm256_set1_epi32(four);
    return {dot<Bits>(sum.a, codes.a, all), dot<Bits>(sum.b, codes.b, all)};
  }
  static Floats signed_bytes(const uint8_t* p) {
    const __m128i all = raw(p);
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(all)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(all, 8)))};
  }
  static void keep_halves(uint16_t* p, Floats v) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.a, kNearest));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(v.b, kNearest));
  }
  static Floats larger(Floats x, Floats y) {
    return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
  }
  static Floats smaller(Floats x, Floats y) {
    return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
  }
  static float largest(Floats x) {
    const __m256 eight = _mm256_max_ps(x.a, x.b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }
  static Floats over(Floats x, Floats y) {
    return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
  }
  static Floats rounded(Floats x) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(x.a, kNearest), _mm256_round_ps(x.b, kNearest)};
  }
  // Whole numbers of -127 to 127 as bytes.
  static void keep_codes(int8_t* p, Floats x) {
    const __m256i two = _mm256_packs_epi32(_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b));
    const __m256i words = _mm256_permute4x64_epi64(two, 0xd8);  // packed within halves before
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packs_epi16(_mm256_castsi256_si128(words),
                                     _mm256_extracti128_si256(words, 1)));
  }
  static float total(Floats x) {
    const __m256 eight = _mm256_add_ps(x.a, x.b);
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  // 2^x of whole numbers within -126 .. 127.
  static __m256 power_of_two(__m256 x) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  }
  static Floats power_of_two(Floats x) { return {power_of_two(x.a), power_of_two(x.b)}; }
  // Inlined, as GCC takes a function that only fetches for one without effects, and drops it.
  static ONHAND_INLINE void prefetch(const uint8_t* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
};

}  // namespace onhand::avx2
