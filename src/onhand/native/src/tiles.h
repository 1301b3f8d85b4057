// Products of many rows by tile instructions, which multiply 16 rows of inputs by 16 outputs.
//
// The integer sums of a group are the same as elsewhere, and each output goes through the same
// chain over its groups, so results are the same bits as those of `products.h`.
//
// While a tile instruction is under way, vector instructions have one port for two. So the two
// kinds take turns, in batches longer than what a processor reorders: some groups of a panel are
// unpacked, then multiplied, then scaled. A batch is short enough to stay in the first cache.
#pragma once

#include <algorithm>

#include "format.h"
#include "unpack.h"

namespace onhand {

constexpr int kPanel = 4;          // tiles of outputs that are multiplied together
constexpr int kBatchInputs = 128;  // of a batch, at most
constexpr int kBatchRows = 128;    // that a panel is unpacked for
constexpr int kHalfRows = 32;      // as many or fewer are faster in batches of half the size
constexpr int kDots = kRows * kRows;
constexpr size_t kPanelScratch =
    size_t(kPanel) * (kBatchInputs * kRows + kBatchInputs / 32 * (kDots + 2 * kRows) * 4 +
                      kBatchRows * kRows * 4);

template <class Simd, int Bits, int Group, bool Symmetric>
class TileProduct {
 public:
  // Tiles `begin` to `end` of a matrix times some rows; of more than 16, rows up to the next
  // multiple of 16 are read, so inputs have room for them.
  static void run(const Packed& w, const Inputs& x, int rows, float* out, size_t stride, int begin,
                  int end, uint8_t* scratch) {
    Simd::begin_tiles(std::min(rows, kRows), kDepth);
    for (int m = 0; m < rows; m += kBatchRows)  // their inputs stay in the second cache
      for (int tile = begin; tile < end; tile += kPanel) {
        const TileProduct panel(w.from(tile), x.from(m), std::min(kPanel, end - tile),
                                std::min(kBatchRows, rows - m),
                                out + m * stride + tile * kRows, stride, scratch);
        panel.run();
      }
    Simd::end_tiles();
  }

 private:
  static constexpr Format kFormat{Bits, Group, Symmetric};
  static constexpr int kDepth = std::min(Group, kLine);  // inputs of one tile instruction
  static constexpr int kGroups = kBatchInputs / Group;   // of a batch, at most
  static constexpr int kBlocks = kPanel * kGroups;

  TileProduct(const Packed& w, const Inputs& x, int n_tiles, int rows, float* out, size_t stride,
              uint8_t* scratch)
      : w_(w), x_(x), n_groups_(x.n_groups), n_tiles_(n_tiles), rows_(rows),
        batch_(rows > kHalfRows ? kGroups : std::max(kGroups / 2, 1)), out_(out), stride_(stride),
        codes_(scratch),
        dots_(reinterpret_cast<int32_t*>(codes_ + kBlocks * Group * kRows)),
        scales_(reinterpret_cast<float*>(dots_ + kBlocks * kDots)),
        zeros_(scales_ + kBlocks * kRows), results_(zeros_ + kBlocks * kRows) {}

  void run() const {
    for (int g = 0; g < x_.n_groups; g += batch_) {
      const int n = std::min(batch_, x_.n_groups - g);
      unpack(g, n);
      for (int m = 0; m < rows_; m += kRows) {
        multiply(g, n, m);
        int j = 0;
        for (; j + 4 <= n; j += 4) scale<4>(g + j, j, m);
        for (; j + 2 <= n; j += 2) scale<2>(g + j, j, m);
        for (; j < n; ++j) scale<1>(g + j, j, m);
      }
    }
  }

  // Codes as they are multiplied: less the middle where that is the zero point.
  void unpack(int first, int n) const {
    const size_t tile_bytes = w_.tile_bytes();
    for (int g = 0; g < n; ++g) {
      const size_t at = size_t(first + g) * kFormat.block_bytes();
      const size_t ahead = reach(at, tile_bytes, kPanel);
      for (int t = 0; t < n_tiles_; ++t) {
        const uint8_t* block = w_.tile(t) + at;
        const int place = g * kPanel + t;
        uint8_t* codes = codes_ + place * Group * kRows;
        onhand::unpack<Simd, Bits, Group>(block, ahead, [&](int step, auto line) {
          Simd::keep(codes + kLine * step,
                     Symmetric ? Simd::minus(line, kFormat.middle()) : line);
        });
        const uint8_t* scales = block + kFormat.code_bytes();
        Simd::store(scales_ + place * kRows, Simd::halves(scales));
        if constexpr (!Symmetric)
          Simd::store(zeros_ + place * kRows, Simd::bytes(scales + 2 * kRows));
      }
    }
    Simd::written(codes_);
  }

  // Integer sums of 16 rows from m on; tiles that a panel lacks are multiplied as they were.
  void multiply(int first, int n, int m) const {
    const size_t width = n_groups_ * Group;
    const int8_t* inputs = x_.codes + m * width + size_t(first) * Group;
    for (int g = 0; g < n; ++g)
      Simd::template multiply_panel<Group / kDepth, Symmetric>(
          inputs + g * Group, width, codes_ + g * kPanel * Group * kRows, Group * kRows,
          dots_ + g * kPanel * kDots, g > 0);
    Simd::store_rest(dots_ + n * kPanel * kDots);
  }

  // Add N groups from `group`, which is `place` of the batch, to the results of 16 rows from m on.
  template <int N>
  void scale(int group, int place, int m) const {
    const bool last = group + N == x_.n_groups;
    const int rows = std::min(kRows, rows_ - m);
    const size_t skip = m * n_groups_ + group;
    Scaled at{dots_ + place * kPanel * kDots, scales_ + place * kPanel * kRows,
              zeros_ + place * kPanel * kRows, x_.scales + skip, x_.minus_sums + skip, n_groups_,
              group == 0 ? nullptr : results_ + m * kPanel * kRows,
              last ? out_ + m * stride_ : results_ + m * kPanel * kRows,
              last ? stride_ : kPanel * kRows};
    for (int t = 0; t < n_tiles_; ++t) {
      int r = 0;
      for (; r + 4 <= rows; r += 4) scale_rows<N, 4>(at, r);
      if (r + 2 <= rows) scale_rows<N, 2>(at, r), r += 2;
      if (r < rows) scale_rows<N, 1>(at, r);
      at.next();
    }
  }

  // What scaling reads and writes, of one tile.
  struct Scaled {
    const int32_t* dots;  // of a group; the next is a panel further, as of scales and zeros
    const float *scales, *zeros;
    const float *row_scales, *row_sums;  // (rows, groups)
    size_t n_groups;
    const float* from;  // null at the first group
    float* to;
    size_t stride;

    void next() {
      dots += kDots;
      scales += kRows;
      zeros += kRows;
      if (from != nullptr) from += kRows;
      to += kRows;
    }
  };
  template <int N, int Rows>
  static ONHAND_INLINE void scale_rows(const Scaled& at, size_t r) {
    typename Simd::Floats result[Rows];
    for (int m = 0; m < Rows; ++m)
      result[m] = at.from == nullptr ? Simd::zero()
                                     : Simd::load(at.from + (r + m) * kPanel * kRows);
    const int32_t* dots = at.dots + r * kRows;
    const float* row_scales = at.row_scales + r * at.n_groups;
    const float* row_sums = at.row_sums + r * at.n_groups;
#pragma GCC unroll 4
    for (int g = 0; g < N; ++g) {
      const auto by = Simd::load(at.scales + g * kPanel * kRows);
#pragma GCC unroll 4
      for (int m = 0; m < Rows; ++m) {
        auto dot = Simd::real(Simd::load_ints(dots + g * kPanel * kDots + m * kRows));
        if constexpr (!Symmetric)
          dot = Simd::fused(Simd::load(at.zeros + g * kPanel * kRows),
                            Simd::all(row_sums[m * at.n_groups + g]), dot);
        result[m] = Simd::fused(Simd::times(by, row_scales[m * at.n_groups + g]), dot, result[m]);
      }
    }
    for (int m = 0; m < Rows; ++m) Simd::store(at.to + (r + m) * at.stride, result[m]);
  }

  const Packed w_;
  const Inputs x_;
  const size_t n_groups_;
  const int n_tiles_, rows_, batch_;  // groups of a batch
  float* const out_;
  const size_t stride_;
  uint8_t* const codes_;                // (group, tile, step, 64)
  int32_t* const dots_;                 // (group, tile, 16 rows, 16 outputs)
  float *const scales_, *const zeros_;  // (group, tile, 16)
  float* const results_;                // (rows, tile, 16)
};

}  // namespace onhand
