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

constexpr int kPanel = 8;  // tiles of outputs that are unpacked together
constexpr int kPanelInputs = 1024;  // inputs of a panel: 16 rows of them fit the first cache
constexpr size_t kPanelScratch =
    size_t(kPanel) * kPanelInputs * kRows + 2 * size_t(kPanel) * (kPanelInputs / 32) * kRows * 4 +
    2 * size_t(kPanelInputs / 32) * kRows * 4 + 2 * size_t(kRows) * kRows * 4;

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
          panel.multiply(n_tiles, g, n, m, std::min(kRows, rows - m), out + kRows * tile);
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
      uint8_t* codes = codes_ + (size_t(t) * n_groups + g) * Group * kRows;
      onhand::unpack<Simd, Bits, Group>(block, [&](int step, auto line) {
        Simd::keep(codes + kLine * step,
                   Symmetric ? Simd::minus(line, kFormat.middle()) : line);
      });
      const uint8_t* scales = block + kFormat.code_bytes();
      Simd::store(scales_ + (t * n_groups + g) * kRows, Simd::halves(scales));
      if constexpr (!Symmetric)
        Simd::store(zeros_ + (t * n_groups + g) * kRows, Simd::bytes(scales + 2 * kRows));
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

  // Tiles of the panel times rows m to m + n_rows, over n groups from `first`, whose sums go on
  // from `out`. The integer sums are one group ahead of what is scaled, across tiles as well: what
  // a tile instruction stores is there only some time later. The last of them is for nothing.
  void multiply(int n_tiles, int first, int n, int m, int n_rows, float* out) {
    float* to[kRows];
    for (int r = 0; r < kRows; ++r) to[r] = r < n_rows ? out + (m + r) * stride_ : spare_;
    const int8_t* const row = x_.codes + m * width_ + size_t(first) * Group;
    const int8_t* inputs = row;
    const uint8_t* codes = codes_;
    const float* scales = scales_;
    const float* zeros = zeros_;
    int32_t* now = dots_;
    int32_t* next = dots_ + kRows * kRows;
    sum(inputs, codes, now);
    for (int t = 0; t < n_tiles; ++t) {
      typename Simd::Floats result[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) result[r] = first == 0 ? Simd::zero() : Simd::load(to[r]);
      for (int g = 0; g < n; ++g) {
        codes += Group * kRows;
        inputs = g + 1 == n ? row : inputs + Group;
        sum(inputs, codes, next);
        scale(now, scales, zeros, g * kRows, result);
        scales += kRows;
        zeros += kRows;
        std::swap(now, next);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) Simd::store(to[r], result[r]);
      for (int r = 0; r < n_rows; ++r) to[r] += kRows;
    }
  }

  // Integer sums of one group: (16 rows, 16 outputs).
  ONHAND_INLINE void sum(const int8_t* inputs, const uint8_t* codes, int32_t* dots) const {
    Simd::template multiply_tiles<Group / kDepth, Symmetric>(inputs, width_, codes, dots);
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
  uint8_t* codes_;     // (tile, group, step, 64)
  float* scales_;      // (tile, group, 16)
  float* zeros_;
  float* row_scales_;  // (group, 16 rows)
  float* row_sums_;
  int32_t* dots_;      // two of (16 rows, 16 outputs)
  alignas(64) float spare_[kRows];  // what rows that are not there come to
};

}  // namespace onhand
