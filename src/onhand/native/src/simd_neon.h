// Sixteen lanes with NEON and its dot product (ARMv8.2): four quarters of four.
#pragma once

#include <arm_neon.h>

#include <cstring>

#include "format.h"

namespace onhand::neon {

struct Floats { float32x4_t v[4]; };
struct Ints { int32x4_t v[4]; };
struct Line { uint8x16_t v[4]; };

template <class F>
inline Floats each(F f) { return {{f(0), f(1), f(2), f(3)}}; }

struct Simd {
  using Floats = neon::Floats;
  using Ints = neon::Ints;
  using Line = neon::Line;
  static constexpr int kBlock = 2;   // rows in one block of a large product
  static constexpr int kStream = 4;  // rows beside each other while a tile streams
  static constexpr int kFewRows = 12;  // more take the way of many
  static constexpr bool kStreams = true;  // tiles beside each other, where memory is what waits
  static constexpr bool kTiles = false, kPairs = false;
  static constexpr int kQueries = 5, kSide = 1;  // queries, and vectors of keys, of a block

  static Floats zero() { return all(0); }
  static Floats load(const float* p) { return each([&](int i) { return vld1q_f32(p + 4 * i); }); }
  static void store(float* p, const Floats& x) {
    for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
  }
  static Floats halves(const uint8_t* p) {
    return each([&](int i) {
      return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * i)));
    });
  }
  static Floats bytes(const uint8_t* p) {
    const uint8x16_t all = vld1q_u8(p);
    const uint16x8_t low = vmovl_u8(vget_low_u8(all)), high = vmovl_u8(vget_high_u8(all));
    return {{real(vget_low_u16(low)), real(vget_high_u16(low)), real(vget_low_u16(high)),
             real(vget_high_u16(high))}};
  }
  static Floats fused(const Floats& x, const Floats& y, const Floats& z) {
    return each([&](int i) { return vfmaq_f32(z.v[i], x.v[i], y.v[i]); });
  }
  static Floats times(const Floats& x, float y) {
    return each([&](int i) { return vmulq_n_f32(x.v[i], y); });
  }
  static Floats times(const Floats& x, const Floats& y) {
    return each([&](int i) { return vmulq_f32(x.v[i], y.v[i]); });
  }
  static Floats all(float x) { return each([&](int) { return vdupq_n_f32(x); }); }
  static Floats real(const Ints& x) {
    return each([&](int i) { return vcvtq_f32_s32(x.v[i]); });
  }
  static Ints ints(int32_t x) {
    const int32x4_t one = vdupq_n_s32(x);
    return {{one, one, one, one}};
  }
  static Line line(const uint8_t* p) {
    return {{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
  }
  static void keep(uint8_t* p, const Line& x) {
    for (int i = 0; i < 4; ++i) vst1q_u8(p + 16 * i, x.v[i]);
  }
  static Line part(const Line& x, int shift, int mask) {
    // A shift to the left by a negative number is one to the right.
    const int8x16_t by = vdupq_n_s8(static_cast<int8_t>(-shift));
    const uint8x16_t kept = vdupq_n_u8(static_cast<uint8_t>(mask));
    Line r;
    for (int i = 0; i < 4; ++i) r.v[i] = vandq_u8(vshlq_u8(x.v[i], by), kept);
    return r;
  }
  static Line third(const Line& low, const Line& high, int shift) {
    const int8x16_t by = vdupq_n_s8(static_cast<int8_t>(2 - shift));
    Line r;
    for (int i = 0; i < 4; ++i)
      r.v[i] = vorrq_u8(low.v[i], vandq_u8(vshlq_u8(high.v[i], by), vdupq_n_u8(4)));
    return r;
  }
  // Four inputs in every lane.
  static int8x16_t four(const int8_t* inputs) {
    int32_t bits;
    std::memcpy(&bits, inputs, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(bits));
  }
  template <int Bits>
  static Ints dot(Ints sum, const Line& codes, const int8_t* inputs) {
    const int8x16_t all = four(inputs);
    if constexpr (Bits < 8) {
      for (int i = 0; i < 4; ++i)
        sum.v[i] = vdotq_s32(sum.v[i], vreinterpretq_s8_u8(codes.v[i]), all);
    } else {
      // Codes up to 255 are no int8; code - 128 is, and -128 times the inputs is the same for all.
      const int32x4_t less = vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(-128), all);
      for (int i = 0; i < 4; ++i) {
        const uint8x16_t moved = veorq_u8(codes.v[i], vdupq_n_u8(128));
        const int32x4_t start = vsubq_s32(sum.v[i], less);
        sum.v[i] = vdotq_s32(start, vreinterpretq_s8_u8(moved), all);
      }
    }
    return sum;
  }
  static Floats signed_bytes(const uint8_t* p) {
    const int8x16_t all = vld1q_s8(reinterpret_cast<const int8_t*>(p));
    const int16x8_t low = vmovl_s8(vget_low_s8(all)), high = vmovl_s8(vget_high_s8(all));
    return {{real(vget_low_s16(low)), real(vget_high_s16(low)), real(vget_low_s16(high)),
             real(vget_high_s16(high))}};
  }
  static void keep_halves(uint16_t* p, const Floats& x) {
    for (int i = 0; i < 4; ++i)
      vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
  }
  // By comparison, as elsewhere: the second where one is no number.
  static Floats larger(const Floats& x, const Floats& y) {
    return each([&](int i) { return vbslq_f32(vcgtq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]); });
  }
  static Floats smaller(const Floats& x, const Floats& y) {
    return each([&](int i) { return vbslq_f32(vcltq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]); });
  }
  static float largest(const Floats& x) {
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.v[0], x.v[1]), vmaxq_f32(x.v[2], x.v[3])));
  }
  static Floats over(const Floats& x, const Floats& y) {
    return each([&](int i) { return vdivq_f32(x.v[i], y.v[i]); });
  }
  static Floats rounded(const Floats& x) {
    return each([&](int i) { return vrndnq_f32(x.v[i]); });
  }
  // Whole numbers of -127 to 127 as bytes.
  static void keep_codes(int8_t* p, const Floats& x) {
    const auto pair = [&](int i) {
      return vcombine_s16(vmovn_s32(vcvtq_s32_f32(x.v[i])), vmovn_s32(vcvtq_s32_f32(x.v[i + 1])));
    };
    vst1q_s8(p, vcombine_s8(vmovn_s16(pair(0)), vmovn_s16(pair(2))));
  }
  static float total(const Floats& x) {
    return vaddvq_f32(vaddq_f32(vaddq_f32(x.v[0], x.v[1]), vaddq_f32(x.v[2], x.v[3])));
  }
  // 2^x of whole numbers within -126 .. 127.
  static Floats power_of_two(const Floats& x) {
    return each([&](int i) {
      const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(x.v[i]), vdupq_n_s32(127));
      return vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23));
    });
  }
  // Inlined, as GCC takes a function that only fetches for one without effects, and drops it.
  static ONHAND_INLINE void prefetch(const uint8_t* p) { __builtin_prefetch(p); }

 private:
  static float32x4_t real(uint16x4_t x) { return vcvtq_f32_u32(vmovl_u16(x)); }
  static float32x4_t real(int16x4_t x) { return vcvtq_f32_s32(vmovl_s16(x)); }
};

}  // namespace onhand::neon
