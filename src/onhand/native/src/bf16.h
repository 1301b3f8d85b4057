// Products of many rows in bf16, by tile instructions.
//
// Scales and zero points go into the weights as these are unpacked, so that nothing is left to do
// between groups: several times as fast as whole numbers, whose sums are scaled group by group.
// Sums run in another order than those of `products.h`, and inputs are rounded in another way, so
// results are not the same bits; only steps of many rows take this way, and only where asked for.
#pragma once

#include <algorithm>
#include <cstring>

#include "format.h"
#include "unpack.h"

namespace onhand {

constexpr int kBf16Rows = 32;     // of a step; fewer go the other way
constexpr int kBf16Step = 32;     // inputs of one tile instruction
constexpr int kBf16Inputs = 512;  // that a panel of two tiles is unpacked for, to fit the first cache
constexpr size_t kBf16Tile = 1024;  // bytes
constexpr int kBf16MostRows = 256;  // at once
constexpr int kBf16Tiles = 16;    // of outputs, that rows pass over together
constexpr size_t kPanelBytes = 2 * kBf16Inputs / kBf16Step * kBf16Tile;
constexpr size_t kBf16Scratch =
    kPanelBytes + size_t(kBf16Tiles) * kBf16MostRows * kRows * sizeof(float);

// Inputs of one row that lie together, on a cache line.
struct alignas(kLine) Bf16Line { uint16_t at[kBf16Step]; };

// Rows of inputs as tile instructions take them: sixteen rows by 32 inputs lie together.
struct Bf16Inputs {
  uint16_t* numbers = nullptr;  // (rows / 16, steps, 16, 32)
  int n_steps = 0;

  uint16_t* at(int row, int step) const {
    return numbers + ((size_t(row / kRows) * n_steps + step) * kRows + row % kRows) * kBf16Step;
  }
};

// Round inputs `begin` to `begin + n` of a row, given as n floats; what the last group of a matrix
// lacks is zero. `begin` is a multiple of 32.
template <class Simd>
inline void round_to_bf16(const float* x, int n, const Packed& w, const Bf16Inputs& to, int row,
                          int begin) {
  const int group = w.format.group;
  const int padded = (n + group - 1) / group * group;
  for (int i = 0; i < padded; i += kBf16Step) {
    const float* from = x + i;
    float last[kBf16Step] = {};
    if (i + kBf16Step > n) {
      if (i < n) std::copy(from, x + n, last);
      from = last;
    }
    Simd::keep_bf16(to.at(row, (begin + i) / kBf16Step), Simd::load(from),
                    Simd::load(from + kRows));
  }
}

template <class Simd, int Bits, int Group, bool Symmetric>
class Bf16Product {
 public:
  // Tiles `begin` to `end` of a matrix times some rows: out[row * stride + tile * 16 + lane]. Rows
  // up to the next multiple of 32 are read and written; `scratch` has kBf16Scratch bytes.
  static void run(const Packed& w, const Bf16Inputs& x, int rows, float* out, size_t stride,
                  int begin, int end, uint8_t* scratch) {
    Simd::begin_tiles(kRows, 2 * kBf16Step);
    for (int first = begin; first < end; first += kBf16Tiles) {
      const Bf16Product some(w, x, rows, out + first * kRows, stride, first,
                             std::min(kBf16Tiles, end - first), scratch);
      for (int step = 0; step < x.n_steps; step += kSteps) some.advance(step);
    }
    Simd::end_tiles();
  }

 private:
  static constexpr Format kFormat{Bits, Group, Symmetric};
  static constexpr int kSteps = kBf16Inputs / kBf16Step;
  static constexpr int kBeside = 2 * kRows;
  static constexpr int kLines = kBf16Step / kStep;  // of codes, of one tile instruction

  Bf16Product(const Packed& w, const Bf16Inputs& x, int rows, float* out, size_t stride, int first,
              int n_tiles, uint8_t* scratch)
      : w_(w.from(first)), x_(x), rows_(rows), n_tiles_(n_tiles), out_(out), stride_(stride),
        panel_(scratch), sums_(reinterpret_cast<float*>(scratch + kPanelBytes)) {}

  // Go on with some steps of all rows, whose inputs stay in the second cache for all tiles.
  void advance(int step) const {
    const int n = std::min(kSteps, x_.n_steps - step);
    for (int tile = 0; tile < n_tiles_; tile += 2) {
      const bool alone = tile + 1 == n_tiles_;
      unpack(tile, step, n, panel_);
      if (!alone) unpack(tile + 1, step, n, panel_ + kBf16Tile);
      Simd::written(panel_);
      float* sums = sums_ + size_t(tile) * kBf16MostRows * kRows;
      float* out = out_ + tile * kRows;
      const bool last = step + n == x_.n_steps;
      for (int m = 0; m < rows_; m += 2 * kRows) {
        float* some = sums + m * kBeside;
        float* to = last && !alone ? out + m * stride_ : some;
        Simd::multiply_bf16(x_.at(m, step), x_.at(m + kRows, step), n, panel_,
                            step == 0 ? nullptr : some, kBeside, to, to == some ? kBeside : stride_);
      }
      if (!(last && alone)) continue;
      Simd::written(sums);
      for (int m = 0; m < rows_; ++m)
        Simd::store(out + m * stride_, Simd::load(sums + m * kBeside));
    }
  }

  // The weights of some steps of a tile; those of its neighbour lie between.
  void unpack(int tile, int first, int n, uint8_t* to) const {
    const size_t at = size_t(first) * kBf16Step / Group * kFormat.block_bytes();
    const uint8_t* block = w_.tile(tile) + at;
    for (int g = 0; g < n * kBf16Step / Group; ++g, block += kFormat.block_bytes()) {
      const uint8_t* behind = block + kFormat.code_bytes();
      const auto scales = Simd::halves(behind);
      const auto zeros = Symmetric ? Simd::all(static_cast<float>(kFormat.middle()))
                                   : Simd::bytes(behind + 2 * kRows);
      const auto below = Simd::times(Simd::times(zeros, scales), -1.0f);
      uint8_t* group = to + size_t(g) * Group / kBf16Step * 2 * kBf16Tile;
      onhand::unpack<Simd, Bits, Group>(block, kReach, [&](int line, auto codes) {
        uint8_t* pairs = group + line / kLines * 2 * kBf16Tile + line % kLines * 2 * kLine;
        Simd::keep_pairs(pairs, codes, scales, below);
      });
    }
  }

  const Packed w_;
  const Bf16Inputs x_;
  const int rows_, n_tiles_;
  float* const out_;
  const size_t stride_;
  uint8_t* const panel_;  // (steps, 2, 16, 64)
  float* const sums_;     // (tiles / 2, kBf16MostRows, 2, 16), of all steps so far
};

}  // namespace onhand
