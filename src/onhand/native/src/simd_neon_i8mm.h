// Sixteen lanes with NEON and i8mm: as NEON, with dot products of unsigned codes, and with
// products of pairs of outputs by pairs of rows, twice the work of an instruction.
#pragma once

#include "simd_neon.h"

namespace onhand::neon_i8mm {

struct Simd : neon::Simd {
  static constexpr int kBlock = 4;    // rows, of which sums and results fit the registers
  static constexpr int kFewRows = 5;  // more take fewer instructions unpacked, by GCC and Clang
  static constexpr bool kPairs = true;

  template <int Bits>
  static Ints dot(Ints sum, const Line& codes, const int8_t* inputs) {
    const int8x16_t all = four(inputs);
    for (int i = 0; i < 4; ++i) sum.v[i] = vusdotq_s32(sum.v[i], codes.v[i], all);
    return sum;
  }

  // Eight lanes of one and eight of another, in turns, from the first half or from the last.
  static Floats in_turns(const Floats& x, const Floats& y, int half) {
    const int i = 2 * half;
    return {{vzip1q_f32(x.v[i], y.v[i]), vzip2q_f32(x.v[i], y.v[i]),
             vzip1q_f32(x.v[i + 1], y.v[i + 1]), vzip2q_f32(x.v[i + 1], y.v[i + 1])}};
  }
  // Of two steps: lines of eight outputs, 8 inputs each.
  static Line in_turns(const Line& x, const Line& y, int half) {
    const Floats both = in_turns(floats(x), floats(y), half);
    Line r;
    for (int i = 0; i < 4; ++i) r.v[i] = vreinterpretq_u8_f32(both.v[i]);
    return r;
  }
  // A number of each of two rows, for eight outputs.
  static Floats both(float x, float y) {
    const float32x2_t pair = {x, y};
    const float32x4_t one = vcombine_f32(pair, pair);
    return {{one, one, one, one}};
  }
  static Ints both(int32_t x, int32_t y) {
    const int32x2_t pair = {x, y};
    const int32x4_t one = vcombine_s32(pair, pair);
    return {{one, one, one, one}};
  }
  // Eight outputs of two rows.
  static Floats load_pair(const float* x, const float* y) {
    const float32x4_t x0 = vld1q_f32(x), x1 = vld1q_f32(x + 4);
    const float32x4_t y0 = vld1q_f32(y), y1 = vld1q_f32(y + 4);
    return {{vzip1q_f32(x0, y0), vzip2q_f32(x0, y0), vzip1q_f32(x1, y1), vzip2q_f32(x1, y1)}};
  }
  static void store_pair(float* x, float* y, const Floats& both) {
    for (int i = 0; i < 2; ++i) {
      vst1q_f32(x + 4 * i, vuzp1q_f32(both.v[2 * i], both.v[2 * i + 1]));
      vst1q_f32(y + 4 * i, vuzp2q_f32(both.v[2 * i], both.v[2 * i + 1]));
    }
  }
  // Add products of 16 inputs of rows x and y, of which `one` holds the first 8 of eight outputs.
  static Ints multiply_pair(Ints sum, const Line& one, const Line& two, const int8_t* x,
                            const int8_t* y) {
    // Joining loads of 8 bytes would take as many instructions, but twice the loads.
    const int64x2_t row_x = vreinterpretq_s64_s8(vld1q_s8(x));
    const int64x2_t row_y = vreinterpretq_s64_s8(vld1q_s8(y));
    const int8x16_t first = vreinterpretq_s8_s64(vzip1q_s64(row_x, row_y));
    const int8x16_t last = vreinterpretq_s8_s64(vzip2q_s64(row_x, row_y));
    for (int i = 0; i < 4; ++i) sum.v[i] = vusmmlaq_s32(sum.v[i], one.v[i], first);
    for (int i = 0; i < 4; ++i) sum.v[i] = vusmmlaq_s32(sum.v[i], two.v[i], last);
    return sum;
  }

 private:
  static Floats floats(const Line& x) {
    return neon::each([&](int i) { return vreinterpretq_f32_u8(x.v[i]); });
  }
};

}  // namespace onhand::neon_i8mm
