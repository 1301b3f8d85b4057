// Sixteen lanes without any instruction set.
#pragma once

#include <cmath>
#include <cstring>

#include "format.h"
#include "half.h"

namespace onhand::portable {

struct Floats { float lane[kRows]; };
struct Ints { int32_t lane[kRows]; };
struct Line { uint8_t byte[kLine]; };

template <class F>
inline Floats each(F f) { Floats r; for (int i = 0; i < kRows; ++i) r.lane[i] = f(i); return r; }

struct Simd {
  using Floats = portable::Floats;
  using Ints = portable::Ints;
  using Line = portable::Line;
  static constexpr int kBlock = 4;   // rows in one block of a large product
  static constexpr int kStream = 4;  // rows beside each other while a tile streams
  static constexpr int kFewRows = 4;  // more take the way of many
  static constexpr bool kStreams = false;  // computing takes longer than memory, and compiling too
  static constexpr bool kTiles = false, kPairs = false;
  static constexpr int kQueries = 4, kSide = 1;  // queries, and vectors of keys, of a block

  static Floats zero() { return each([](int) { return 0.0f; }); }
  static Floats load(const float* p) { return each([&](int i) { return p[i]; }); }
  static void store(float* p, const Floats& v) { std::memcpy(p, v.lane, sizeof v.lane); }
  static Floats halves(const uint8_t* p) {
    return each([&](int i) { uint16_t h; std::memcpy(&h, p + 2 * i, 2); return to_float(h); });
  }
  static Floats bytes(const uint8_t* p) { return each([&](int i) { return float(p[i]); }); }
  static Floats fused(const Floats& a, const Floats& b, const Floats& c) {
    return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  static Floats times(const Floats& a, float b) {
    return each([&](int i) { return a.lane[i] * b; });
  }
  static Floats times(const Floats& a, const Floats& b) {
    return each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static Floats all(float x) { return each([&](int) { return x; }); }
  static Floats real(const Ints& a) { return each([&](int i) { return float(a.lane[i]); }); }
  static Ints ints(int32_t x) { Ints r; for (int& l : r.lane) l = x; return r; }
  static Line line(const uint8_t* p) { Line r; std::memcpy(r.byte, p, kLine); return r; }
  static void keep(uint8_t* p, const Line& v) { std::memcpy(p, v.byte, kLine); }
  // (v >> shift) & mask, byte by byte.
  static Line part(const Line& v, int shift, int mask) {
    Line r;
    for (int i = 0; i < kLine; ++i) r.byte[i] = (v.byte[i] >> shift) & mask;
    return r;
  }
  // low | ((high >> shift & 1) << 2), byte by byte.
  static Line third(const Line& low, const Line& high, int shift) {
    Line r;
    for (int i = 0; i < kLine; ++i) r.byte[i] = low.byte[i] | ((high.byte[i] >> shift & 1) << 2);
    return r;
  }
  // sum[r] += the product of row r's four codes and four inputs.
  template <int Bits>
  static Ints dot(Ints sum, const Line& codes, const int8_t* inputs) {
    for (int r = 0; r < kRows; ++r)
      for (int j = 0; j < kStep; ++j) sum.lane[r] += int(codes.byte[kStep * r + j]) * inputs[j];
    return sum;
  }
  static Floats signed_bytes(const uint8_t* p) {
    return each([&](int i) { return float(static_cast<int8_t>(p[i])); });
  }
  static void keep_halves(uint16_t* p, const Floats& v) {
    for (int i = 0; i < kRows; ++i) p[i] = to_half(v.lane[i]);
  }
  static Floats larger(const Floats& a, const Floats& b) {
    return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Floats smaller(const Floats& a, const Floats& b) {
    return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static float largest(const Floats& a) {
    float most = a.lane[0];
    for (float one : a.lane) most = one > most ? one : most;
    return most;
  }
  static Floats over(const Floats& a, const Floats& b) {
    return each([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static Floats rounded(const Floats& a) {
    return each([&](int i) { return std::nearbyint(a.lane[i]); });
  }
  // Whole numbers of -127 to 127 as bytes.
  static void keep_codes(int8_t* p, const Floats& a) {
    for (int i = 0; i < kRows; ++i) p[i] = static_cast<int8_t>(a.lane[i]);
  }
  static float total(const Floats& a) {
    float sum = 0;
    for (float one : a.lane) sum += one;
    return sum;
  }
  // 2^a of whole numbers within -126 .. 127.
  static Floats power_of_two(const Floats& a) {
    return each([&](int i) {
      // The lowest bits of this sum are the exponent; of what is no number they are zero.
      const float shifted = a.lane[i] + (0x1.8p23f + 127);
      uint32_t bits;
      std::memcpy(&bits, &shifted, 4);
      bits <<= 23;
      float power;
      std::memcpy(&power, &bits, 4);
      return power;
    });
  }
  static void prefetch(const uint8_t*) {}
};

}  // namespace onhand::portable
