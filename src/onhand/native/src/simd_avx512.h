// Sixteen lanes with AVX-512 (F, BW, VL, VNNI).
#pragma once

#include <immintrin.h>

#include <cstring>

#include "format.h"

namespace onhand::avx512 {

struct Simd {
  using Floats = __m512;
  using Ints = __m512i;
  using Line = __m512i;
  static constexpr int kBlock = 6;   // rows in one block of a large product
  static constexpr int kStream = 8;  // rows beside each other while a tile streams
  static constexpr int kFewRows = 16;  // more take the way of many
  static constexpr bool kStreams = true;  // tiles beside each other, where memory is what waits
  static constexpr bool kTiles = false, kPairs = false;
  static constexpr int kQueries = 8, kSide = 2;  // queries, and vectors of keys, of a block

  static Floats zero() { return _mm512_setzero_ps(); }
  static Floats load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
  static Floats halves(const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Floats bytes(const uint8_t* p) {
    const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(raw));
  }
  static Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats times(Floats a, float b) { return _mm512_mul_ps(a, _mm512_set1_ps(b)); }
  static Floats times(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats all(float x) { return _mm512_set1_ps(x); }
  static Floats real(Ints a) { return _mm512_cvtepi32_ps(a); }
  static Ints ints(int32_t x) { return _mm512_set1_epi32(x); }
  static Line line(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static void keep(uint8_t* p, Line v) { _mm512_storeu_si512(p, v); }
  static Line part(Line v, int shift, int mask) {
    // Bits of the neighbouring byte come in at the top; the mask takes them away.
    const Line moved = shift == 0 ? v : _mm512_srli_epi16(v, shift);
    return _mm512_and_si512(moved, _mm512_set1_epi8(static_cast<char>(mask)));
  }
  static Line third(Line low, Line high, int shift) {
    const Line moved = shift < 2    ? _mm512_slli_epi16(high, 2 - shift)
                       : shift == 2 ? high
                                    : _mm512_srli_epi16(high, shift - 2);
    // low | (moved & 4)
    return _mm512_ternarylogic_epi32(low, moved, _mm512_set1_epi8(4), 0xf8);
  }
  template <int Bits>
  static Ints dot(Ints sum, Line codes, const int8_t* inputs) {
#if defined(__GNUC__)
    // Intrinsics make compilers copy the sum and load the inputs apart, which is half of the work.
    asm("vpdpbusd %2%{1to16%}, %1, %0"
        : "+v"(sum)
        : "v"(codes), "m"(*reinterpret_cast<const int8_t(*)[kStep]>(inputs)));
    return sum;
#else
    int32_t four;
    std::memcpy(&four, inputs, sizeof four);
    return _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(four));
#endif
  }
  static Floats signed_bytes(const uint8_t* p) {
    const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(raw));
  }
  static void keep_halves(uint16_t* p, Floats v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
  static Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
  static float largest(Floats a) { return _mm512_reduce_max_ps(a); }
  static Floats over(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  static Floats rounded(Floats a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // Whole numbers of -127 to 127 as bytes.
  static void keep_codes(int8_t* p, Floats v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
  }
  static float total(Floats a) { return _mm512_reduce_add_ps(a); }
  // 2^a of whole numbers within -126 .. 127.
  static Floats power_of_two(Floats a) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
  }
  // Inlined, as GCC takes a function that only fetches for one without effects, and drops it.
  static ONHAND_INLINE void prefetch(const uint8_t* p) {
    _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
  }
};

}  // namespace onhand::avx512
