// Products of many rows by tile instructions, which multiply 16 rows of inputs by 16 outputs.
//
// The integer sums of a group are the same as elsewhere, and each output goes through the same
// chain over its groups, so results are the same bits as those of `products.h`.
#pragma once

#include <algorithm>

#include "format.h"
#include "unpack.h"

namespace onhand {

constexpr int kPanel = 4;          // tiles of outputs that are unpacked together
constexpr int kPanelInputs = 1024;  // inputs of a panel: 16 rows of them fit the first cache
constexpr size_t kPanelScratch =
    size_t(kPanel) * kPanelInputs * kRows + 2 * size_t(kPanel) * (kPanelInputs / 32) * kRows * 4 +
    2 * size_t(kRows) * kRows * 4;

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
        for (int m = 0; m < rows; m += kRows)
          for (int t = 0; t < n_tiles; ++t)
            panel.multiply(t, g, n, m, std::min(kRows, rows - m), out + kRows * (tile + t));
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
        dots_(reinterpret_cast<int32_t*>(zeros_ + kPanel * kFloats)) {}

  // Codes as they are multiplied: less the middle where that is the zero point.
  void unpack(const uint8_t* block, int n_groups, int t) {
    for (int g = 0; g < n_groups; ++g, block += kFormat.block_bytes()) {
      uint8_t* codes = codes_ + t * kCodes + size_t(g) * Group * kRows;
      onhand::unpack<Simd, Bits, Group>(block, [&](int step, auto line) {
        Simd::keep(codes + kLine * step,
                   Symmetric ? Simd::minus(line, kFormat.middle()) : line);
      });
      const uint8_t* scales = block + kFormat.code_bytes();
      Simd::store(scales_ + t * kFloats + g * kRows, Simd::halves(scales));
      if constexpr (!Symmetric)
        Simd::store(zeros_ + t * kFloats + g * kRows, Simd::bytes(scales + 2 * kRows));
    }
  }

  // Integer sums of one group: (16 rows, 16 outputs) to `dots`.
  template <int Sum>
  void sum(const uint8_t* codes, const int8_t* inputs, int32_t* dots) const {
    Simd::template multiply_tiles<Sum, Group / kDepth, Symmetric>(inputs, width_, codes, dots);
  }

  // Tile t times rows m to m + n_rows, over n groups from `first`, whose sums go on from `out`.
  void multiply(int t, int first, int n, int m, int n_rows, float* out) const {
    const uint8_t* codes = codes_ + t * kCodes;
    const int8_t* inputs = x_.codes + m * width_ + size_t(first) * Group;
    out += m * stride_;
    typename Simd::Floats result[kRows];
    for (int r = 0; r < kRows; ++r)
      result[r] = first == 0 || r >= n_rows ? Simd::zero() : Simd::load(out + r * stride_);
    // The next group is multiplied while this one is scaled.
    int32_t* even = dots_;
    int32_t* odd = dots_ + kRows * kRows;
    sum<0>(codes, inputs, even);
    for (int g = 0; g < n; ++g) {
      codes += Group * kRows;
      inputs += Group;
      if (g % 2 == 0) {
        if (g + 1 < n) sum<1>(codes, inputs, odd);
        scale(even, t, g, m, first + g, result);
      } else {
        if (g + 1 < n) sum<0>(codes, inputs, even);
        scale(odd, t, g, m, first + g, result);
      }
    }
    for (int r = 0; r < n_rows; ++r) Simd::store(out + r * stride_, result[r]);
  }

  ONHAND_INLINE void scale(const int32_t* dots, int t, int g, int m, int place,
                           typename Simd::Floats (&result)[kRows]) const {
    const auto scales = Simd::load(scales_ + t * kFloats + g * kRows);
    const float* by = x_.scales + size_t(m) * x_.n_groups + place;
    [[maybe_unused]] const float* sums = x_.minus_sums + size_t(m) * x_.n_groups + place;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      auto dot = Simd::real(Simd::load_ints(dots + kRows * r));
      if constexpr (!Symmetric)
        dot = Simd::fused(Simd::load(zeros_ + t * kFloats + g * kRows),
                          Simd::all(sums[size_t(r) * x_.n_groups]), dot);
      result[r] = Simd::fused(Simd::times(scales, by[size_t(r) * x_.n_groups]), dot, result[r]);
    }
  }

  const Inputs& x_;
  const size_t width_, stride_;
  uint8_t* codes_;   // (tile, step, 64)
  float* scales_;    // (tile, group, 16)
  float* zeros_;
  int32_t* dots_;    // two of (16 rows, 16 outputs)
};

}  // namespace onhand
