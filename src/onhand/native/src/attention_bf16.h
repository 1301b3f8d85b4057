// The same as `attention_pages.h` by tile instructions in bf16: where that is asked for, and a
// head's size is a multiple of 32.
#pragma once

#include "attention_pages.h"
#include "bf16.h"

namespace onhand {

// Numbers of bf16 that `PageTiles` works in.
constexpr size_t bf16_page_space(int most_queries, int dim) {
  return size_t(most_queries) * (dim + kPage) + size_t(kPage) * dim;
}

template <class Simd, class Numbers>
class PageTiles {
 public:
  PageTiles(Workspace::Attention& own, int dim) : own_(own), dim_(dim) {
    uint16_t* space = own.bf16.data()->at;
    queries_ = {space, dim / kBf16Step};
    shares_ = {space + size_t(own.most_queries) * dim, kPage / kBf16Step};
    panel_ = reinterpret_cast<uint8_t*>(space + size_t(own.most_queries) * (dim + kPage));
    Simd::begin_tiles(kRows, 2 * kBf16Step);
  }
  PageTiles(const PageTiles&) = delete;
  PageTiles& operator=(const PageTiles&) = delete;
  ~PageTiles() { Simd::end_tiles(); }

  void take(const Queries& queries) {
    n_ = queries.n;
    for (int m = 0; m < n_; ++m)
      for (int d = 0; d < dim_; d += kBf16Step) keep(queries_, m, d, queries.at(m));
  }

  void score(const uint8_t* keys, const uint8_t*, int high) const {
    const int n_steps = dim_ / kBf16Step;
    for (int p = 0; p < high; p += kBeside) {
      for (int side = 0; side < 2; ++side) {
        const int first = p + side * kRows;
        const uint8_t* block = keys + size_t(Numbers::kBytes) * first * dim_;
        const auto key = [&](int d) {  // number d of sixteen keys
          const auto found = Numbers::load(block + Numbers::kBytes * kRows * d);
          if constexpr (!Numbers::kScaled) return found;
          else return Simd::times(found, Simd::load(scales_of(keys, dim_) + first));
        };
        for (int d = 0; d < dim_; d += 2) Simd::keep_beside(place(d, side), key(d), key(d + 1));
      }
      Simd::written(panel_);
      for (int m = 0; m < n_; m += 2 * kRows)
        Simd::multiply_bf16(queries_.at(m, 0), queries_.at(m + kRows, 0), n_steps, panel_, nullptr,
                            0, own_.scores.data() + m * kPage + p, kPage);
      Simd::written(panel_);
    }
  }

  void mix(const uint8_t* values, const uint8_t*, Seen seen) const {
    const int n_steps = (seen.end + kBf16Step - 1) / kBf16Step, n_values = n_steps * kBf16Step;
    for (int m = 0; m < n_; ++m)
      for (int p = 0; p < n_values; p += kBf16Step)
        keep(shares_, m, p, own_.scores.data() + m * kPage);
    for (int d = 0; d < dim_; d += kBeside) {
      for (int p = 0; p < n_values; p += 2)
        for (int side = 0; side < 2; ++side)
          keep_values(place(p, side), values, d + side * kRows, p, seen.end);
      Simd::written(panel_);
      for (int m = 0; m < n_; m += 2 * kRows) {
        float* sums = own_.sums.data() + m * dim_ + d;
        Simd::multiply_bf16(shares_.at(m, 0), shares_.at(m + kRows, 0), n_steps, panel_, sums, dim_,
                            sums, dim_);
      }
      Simd::written(panel_);
    }
  }

 private:
  static constexpr int kBeside = 2 * kRows;  // keys, or numbers of a value, of two tiles

  // Keep 32 inputs of row m, from i on.
  static void keep(const Bf16Inputs& to, int m, int i, const float* row) {
    Simd::keep_bf16(to.at(m, i / kBf16Step), Simd::load(row + i), Simd::load(row + i + kRows));
  }

  // Where inputs i and i + 1 of a product lie, of one of two tiles.
  uint8_t* place(int i, int side) const {
    return panel_ + (i / kBf16Step * 2 + side) * kBf16Tile + i % kBf16Step / 2 * kLine;
  }

  // Sixteen numbers, from d on, of values p and p + 1; from `end` on they count as zero, whatever
  // their memory holds.
  void keep_values(uint8_t* to, const uint8_t* values, int d, int p, int end) const {
    const auto value = [&](int at) {
      if (at >= end) return Simd::zero();
      const auto found = Numbers::load(values + Numbers::kBytes * (size_t(at) * dim_ + d));
      if constexpr (!Numbers::kScaled) return found;
      else return Simd::times(found, scales_of(values, dim_)[at]);
    };
    Simd::keep_beside(to, value(p), value(p + 1));
  }

  Workspace::Attention& own_;
  const int dim_;
  int n_ = 0;                    // queries
  Bf16Inputs queries_, shares_;  // rows of them
  uint8_t* panel_;               // (steps, 2, 16, 64)
};

}  // namespace onhand
