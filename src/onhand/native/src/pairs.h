// Products of many rows by instructions that multiply two outputs by two rows of inputs.
//
// Such an instruction sums 8 inputs of each at once, to [output 0, row 0], [output 0, row 1],
// [output 1, row 0], [output 1, row 1]. Scaling keeps that order, so sixteen lanes are eight
// outputs of two rows here; results are put in order as they are stored. The integer sums of a
// group are the same as elsewhere, and each output goes through the same chain over its groups,
// so results are the same bits as those of `products.h`.
#pragma once

#include <algorithm>

#include "format.h"
#include "unpack.h"

namespace onhand {

constexpr int kPairInputs = 1024;  // of a tile, unpacked at a time: they fit a first cache
constexpr int kHalf = kRows / 2;   // outputs of a tile that are multiplied together
constexpr size_t kPairScratch = size_t(kPairInputs) * kRows + kPairInputs / 32 * 2 * kLine * 2;

template <class Simd, int Group, bool Symmetric>
class PairProduct {
 public:
  // Tiles `begin` to `end` of a matrix times some rows.
  template <int Bits>
  static void run(const Packed& w, const Inputs& x, int rows, float* out, size_t stride, int begin,
                  int end, uint8_t* scratch) {
    const PairProduct product(x, rows, stride, scratch);
    for (int tile = begin; tile < end; ++tile)
      for (int g = 0; g < w.n_groups; g += kGroups) {
        const int n = std::min(kGroups, w.n_groups - g);
        product.template unpack<Bits>(w.tile(tile), g, n);
        product.multiply(g, n, out + tile * kRows);
      }
  }

 private:
  static constexpr int kGroups = kPairInputs / Group;  // unpacked at a time, at most

  PairProduct(const Inputs& x, int rows, size_t stride, uint8_t* scratch)
      : x_(x), rows_(rows), stride_(stride), width_(size_t(x.n_groups) * Group), codes_(scratch),
        scales_(reinterpret_cast<float*>(codes_ + kPairInputs * kRows)),
        zeros_(scales_ + kGroups * 2 * kRows) {}

  // Codes as they are multiplied, and scales and zeros once for each of two rows.
  template <int Bits>
  void unpack(const uint8_t* block, int first, int n) const {
    constexpr Format kFormat{Bits, Group, Symmetric};
    block += size_t(first) * kFormat.block_bytes();
    for (int g = 0; g < n; ++g, block += kFormat.block_bytes()) {
      uint8_t* to = codes_ + g * Group * kHalf;
      typename Simd::Line even{};
      onhand::unpack<Simd, Bits, Group>(block, kReach, [&](int step, auto line) {
        if (step % 2 == 0) {
          even = line;
          return;
        }
        for (int half = 0; half < 2; ++half)
          Simd::keep(to + half * kPairInputs * kHalf + step / 2 * kLine,
                     Simd::in_turns(even, line, half));
      });
      const uint8_t* scales = block + kFormat.code_bytes();
      const auto scale = Simd::halves(scales);
      for (int half = 0; half < 2; ++half)
        Simd::store(scales_ + (half * kGroups + g) * kRows, Simd::in_turns(scale, scale, half));
      if constexpr (!Symmetric) {
        const auto zero = Simd::bytes(scales + 2 * kRows);
        for (int half = 0; half < 2; ++half)
          Simd::store(zeros_ + (half * kGroups + g) * kRows, Simd::in_turns(zero, zero, half));
      }
    }
  }

  // All rows times `n` groups that are unpacked, the first of which is `first` of the matrix.
  void multiply(int first, int n, float* out) const {
    int m = 0;
    for (; m + Simd::kBlock <= rows_; m += Simd::kBlock)
      for (int half = 0; half < 2; ++half) block<Simd::kBlock / 2>(first, n, m, 1, half, out);
    for (; m < rows_; m += 2)
      for (int half = 0; half < 2; ++half) block<1>(first, n, m, m + 1 < rows_, half, out);
  }

  // `Pairs` pairs of rows from m on; `next` is 0 where a row is left and pairs with itself.
  template <int Pairs>
  ONHAND_INLINE void block(int first, int n, int m, int next, int half, float* out) const {
    const Inputs x = x_.from(m);
    out += m * stride_ + half * kHalf;
    typename Simd::Floats result[Pairs];
    for (int p = 0; p < Pairs; ++p) {
      result[p] = Simd::zero();
      if (first > 0)
        result[p] = Simd::load_pair(out + 2 * p * stride_, out + (2 * p + next) * stride_);
    }
    for (int g = 0; g < n; ++g) {
      const int8_t* inputs = x.codes + size_t(first + g) * Group;
      const uint8_t* codes = codes_ + (half * kPairInputs + g * Group) * kHalf;
      // What the rows of a pair have for this group.
      const auto both = [&](const auto* values, int p) {
        values += 2 * p * x.n_groups + first + g;
        return Simd::both(values[0], values[next * x.n_groups]);
      };
      typename Simd::Ints sum[Pairs];
      for (int p = 0; p < Pairs; ++p) sum[p] = Symmetric ? both(x.starts, p) : Simd::ints(0);
      for (int i = 0; i < Group; i += 16) {
        const auto one = Simd::line(codes + i * kHalf);
        const auto two = Simd::line(codes + i * kHalf + kLine);
        for (int p = 0; p < Pairs; ++p) {
          const int8_t* row = inputs + 2 * p * width_ + i;
          sum[p] = Simd::multiply_pair(sum[p], one, two, row, row + next * width_);
        }
      }
      const auto scales = Simd::load(scales_ + (half * kGroups + g) * kRows);
      for (int p = 0; p < Pairs; ++p) {
        auto dot = Simd::real(sum[p]);
        if constexpr (!Symmetric) {
          const auto zeros = Simd::load(zeros_ + (half * kGroups + g) * kRows);
          dot = Simd::fused(zeros, both(x.minus_sums, p), dot);
        }
        result[p] = Simd::fused(Simd::times(scales, both(x.scales, p)), dot, result[p]);
      }
    }
    for (int p = 0; p < Pairs; ++p)
      Simd::store_pair(out + 2 * p * stride_, out + (2 * p + next) * stride_, result[p]);
  }

  const Inputs x_;
  const int rows_;
  const size_t stride_, width_;
  uint8_t* const codes_;                // (half, group, 8 inputs, 8 outputs, 8)
  float *const scales_, *const zeros_;  // (half, group, 8 outputs, 2)
};

}  // namespace onhand
