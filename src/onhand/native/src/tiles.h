// Products of many rows by tile instructions, which multiply 16 rows of inputs by 16 outputs.
//
// The integer sums of a group are the same as elsewhere, and each output goes through the same
// chain over its groups, so results are the same bits as those of `products.h`.
#pragma once

#include <algorithm>
#include <utility>

#include "format.h"
#include "unpack.h"

namespace onhand {

constexpr int kPanel = 4;          // tiles of outputs that are unpacked together
constexpr int kPanelInputs = 1024;  // inputs of a panel: 16 rows of them fit the first cache
constexpr int kAhead = 4;  // groups that are multiplied while as many are scaled
constexpr size_t kPanelScratch =
    size_t(kPanel) * kPanelInputs * kRows + 2 * size_t(kPanel) * (kPanelInputs / 32) * kRows * 4 +
    2 * size_t(kPanelInputs / 32) * kRows * 4 + 2 * size_t(kAhead) * kRows * kRows * 4;

template <class Simd, int Bits, int Group, bool Symmetric>
class TileProduct {
 public:
  // Tiles `begin` to `end` of a matrix times some rows; rows up to the next multiple of 16 are
  // read, so inputs have room for them.
  static void run(const Packed& w, const Inputs& x, int rows, float* out, size_t stride, int begin,
                  int end, uint8_t* scratch) {
    constexpr int kGroups = kPanelInputs / Group;
    Simd::begin_tiles(kDepth);
    TileProduct panel(x, stride, scratch);
    for (int tile = begin; tile < end; tile += kPanel) {
      const int n_tiles = std::min(kPanel, end - tile);
      for (int g = 0; g < w.n_groups; g += kGroups) {
        const int n = std::min(kGroups, w.n_groups - g);
        for (int t = 0; t < n_tiles; ++t)
          panel.unpack(w.tile(tile + t) + size_t(g) * kFormat.block_bytes(), n, t);
        Simd::written(scratch);
        for (int m = 0; m < rows; m += kRows) {
          panel.turn(g, n, m);
          for (int t = 0; t < n_tiles; ++t)
            panel.multiply(t, g, n, m, std::min(kRows, rows - m), out + kRows * (tile + t));
        }
      }
    }
    Simd::end_tiles();
  }

 private:
  static constexpr Format kFormat{Bits, Group, Symmetric};
  static constexpr int kDepth = std::min(Group, kLine);  // inputs of one tile instruction
  static constexpr size_t kCodes = size_t(kPanelInputs) * kRows;
  static constexpr size_t kFloats = size_t(kPanelInputs / Group) * kRows;

  TileProduct(const Inputs& x, size_t stride, uint8_t* scratch)
      : x_(x), width_(size_t(x.n_groups) * Group), stride_(stride), codes_(scratch),
        scales_(reinterpret_cast<float*>(scratch + kPanel * kCodes)),
        zeros_(scales_ + kPanel * kFloats),
        row_scales_(zeros_ + kPanel * kFloats), row_sums_(row_scales_ + kFloats),
        dots_(reinterpret_cast<int32_t*>(row_sums_ + kFloats)) {}

  // Codes as they are multiplied: less the middle where that is the zero point.
  void unpack(const uint8_t* block, int n_groups, int t) {
    for (int g = 0; g < n_groups; ++g, block += kFormat.block_bytes()) {
      uint8_t* codes = codes_ + t * kCodes + size_t(g) * Group * kRows;
      onhand::unpack<Simd, Bits, Group>(block, kReach, [&](int step, auto line) {
        Simd::keep(codes + kLine * step,
                   Symmetric ? Simd::minus(line, kFormat.middle()) : line);
      });
      const uint8_t* scales = block + kFormat.code_bytes();
      Simd::store(scales_ + t * kFloats + g * kRows, Simd::halves(scales));
      if constexpr (!Symmetric)
        Simd::store(zeros_ + t * kFloats + g * kRows, Simd::bytes(scales + 2 * kRows));
    }
  }

  // Scales of rows m to m + 16, so that those of one group lie together.
  void turn(int first, int n, int m) {
    for (int r = 0; r < kRows; ++r) {
      const size_t at = size_t(m + r) * x_.n_groups + first;
      for (int g = 0; g < n; ++g) row_scales_[g * kRows + r] = x_.scales[at + g];
      if constexpr (!Symmetric)
        for (int g = 0; g < n; ++g) row_sums_[g * kRows + r] = x_.minus_sums[at + g];
    }
  }

  // Integer sums of up to `kAhead` groups, (16 rows, 16 outputs) each, to `dots`.
  ONHAND_INLINE void sum(int n, const uint8_t* codes, const int8_t* inputs, int32_t* dots) const {
    sum_one<0>(codes, inputs, dots);
    if (n > 1) sum_one<1>(codes, inputs, dots);
    if (n > 2) sum_one<2>(codes, inputs, dots);
    if (n > 3) sum_one<3>(codes, inputs, dots);
  }
  template <int I>
  ONHAND_INLINE void sum_one(const uint8_t* codes, const int8_t* inputs, int32_t* dots) const {
    static_assert(I < kAhead);
    Simd::template multiply_tiles<I, Group / kDepth, Symmetric>(
        inputs + I * Group, width_, codes + I * Group * kRows, dots + I * kRows * kRows);
  }

  // Tile t times rows m to m + n_rows, over n groups from `first`, whose sums go on from `out`.
  void multiply(int t, int first, int n, int m, int n_rows, float* out) const {
    const uint8_t* codes = codes_ + t * kCodes;
    const int8_t* inputs = x_.codes + m * width_ + size_t(first) * Group;
    const float* scales = scales_ + t * kFloats;
    const float* zeros = zeros_ + t * kFloats;
    out += m * stride_;
    alignas(64) float begin[kRows * kRows] = {};
    if (first > 0)
      for (int r = 0; r < n_rows; ++r)
        std::copy(out + r * stride_, out + r * stride_ + kRows, begin + r * kRows);
    typename Simd::Floats result[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) result[r] = Simd::load(begin + r * kRows);
    int32_t* now = dots_;
    int32_t* next = dots_ + kAhead * kRows * kRows;
    sum(n, codes, inputs, now);
    for (int g = 0; g < n; g += kAhead) {
      codes += kAhead * Group * kRows;
      inputs += kAhead * Group;
      if (g + kAhead < n) sum(n - g - kAhead, codes, inputs, next);
      for (int j = g; j < std::min(g + kAhead, n); ++j)
        scale(now + (j - g) * kRows * kRows, scales + j * kRows, zeros + j * kRows, j * kRows, result);
      std::swap(now, next);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) Simd::store(begin + r * kRows, result[r]);
    for (int r = 0; r < n_rows; ++r)
      std::copy(begin + r * kRows, begin + (r + 1) * kRows, out + r * stride_);
  }

  // Add 16 rows of one group; the rows' own scales begin at `place`.
  ONHAND_INLINE void scale(const int32_t* dots, const float* scales, const float* zeros, int place,
                           typename Simd::Floats (&result)[kRows]) const {
    const auto by = Simd::load(scales);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      auto dot = Simd::real(Simd::load_ints(dots + kRows * r));
      if constexpr (!Symmetric)
        dot = Simd::fused(Simd::load(zeros), Simd::all(row_sums_[place + r]), dot);
      result[r] = Simd::fused(Simd::times(by, row_scales_[place + r]), dot, result[r]);
    }
  }

  const Inputs& x_;
  const size_t width_, stride_;
  uint8_t* codes_;   // (tile, step, 64)
  float* scales_;    // (tile, group, 16)
  float* zeros_;
  float* row_scales_;  // (group, 16 rows)
  float* row_sums_;
  int32_t* dots_;    // two of (kAhead, 16 rows, 16 outputs)
};

}  // namespace onhand
