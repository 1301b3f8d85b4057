// A packed matrix as Python holds it, and the arrays that Python gives.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

#include "arena.h"
#include "coarse.h"
#include "pack.h"

namespace onhand {
namespace nb = nanobind;

inline void expect(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}
inline void expect(bool holds, const std::string& what) { expect(holds, what.c_str()); }

// What a description may ask for: what a manifest may, and more threads than anybody has cores.
constexpr int kMostThreads = 1024, kMostHeads = 4096, kMostWidth = 1 << 22, kMostContext = 1 << 20;
constexpr int kMostLimit = 1 << 24;  // of the context before rotary tables are stretched
constexpr int kMostSide = 1 << 26;  // of a matrix

inline int checked_threads(int n) {
  expect(n >= 1 && n <= kMostThreads, "threads must be 1 to 1024");
  return n;
}

using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Halves = nb::ndarray<const uint16_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Tokens = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Files and states may put numbers anywhere; vector instructions want them in their places.
template <class Array>
void expect_aligned(const Array& array) {
  using Number = std::remove_pointer_t<decltype(array.data())>;
  expect(reinterpret_cast<uintptr_t>(array.data()) % alignof(Number) == 0,
         "an array's numbers are not aligned");
}

constexpr size_t kManyBytes = size_t{2} << 20;  // of a matrix that several threads pack

// A packed matrix and its memory.
class Matrix {
 public:
  Matrix(int bits, int group, int n_rows, int n_inputs, Bytes codes, Halves scales,
         nb::object zeros, int n_threads, Arena* arena)
      : shape_(checked({bits, group, zeros.is_none()}, n_rows, n_inputs)) {
    checked_threads(n_threads);
    const size_t rows = n_rows, groups = shape_.n_groups;
    expect(codes.size() == rows * groups * group * bits / 8, "codes have another size");
    expect(scales.shape(0) == rows && scales.shape(1) == groups, "scales have another shape");
    expect_aligned(scales);
    Stored from{shape_.format, n_rows, n_inputs, codes.data(), scales.data(), nullptr};
    Bytes kept;
    if (!zeros.is_none()) {
      kept = nb::cast<Bytes>(zeros);
      expect(kept.size() == rows * ((groups * bits + 7) / 8), "zeros have another size");
      from.zeros = kept.data();
    }
    Arena own(0);
    fill(arena == nullptr ? own : *arena, n_threads,
         [&](int begin, int end) { pack(from, shape_, memory_.get(), begin, end); });
  }

  // A coarse copy of a matrix.
  Matrix(const Matrix& of, int n_threads)
      : shape_(layout(kCoarse, of.shape_.n_rows, of.shape_.n_inputs)) {
    checked_threads(n_threads);
    Arena own(0);
    fill(own, n_threads,
         [&](int begin, int end) { coarsen(of.shape_, memory_.get(), begin, end); });
  }

  const Packed& packed() const { return shape_; }

 private:
  template <class Fill>
  void fill(Arena& arena, int n_threads, Fill fill_tiles) {
    memory_ = arena.take(shape_.bytes());
    shape_.data = memory_.get();
    nb::gil_scoped_release free;
    // Tiles are apart from each other, so threads share a large matrix without a word.
    const int n = shape_.bytes() < kManyBytes ? 1 : n_threads;
    const auto part = [&](int i) {
      const int64_t tiles = shape_.n_tiles;
      fill_tiles(static_cast<int>(tiles * i / n), static_cast<int>(tiles * (i + 1) / n));
    };
    std::vector<std::thread> others;
    for (int i = 1; i < n; ++i) {
      try {
        others.emplace_back([&, i] { part(i); });
      } catch (const std::system_error&) {
        part(i);  // the system gives no more threads
      }
    }
    part(0);
    for (auto& one : others) one.join();
  }
  static Packed checked(const Format& format, int n_rows, int n_inputs) {
    const int bits = format.bits, group = format.group;
    expect(bits == 2 || bits == 3 || bits == 4 || bits == 8, "bits must be 2, 3, 4 or 8");
    expect(group == 32 || group == 64 || group == 128, "group must be 32, 64 or 128");
    const auto fits = [](int n) { return n > 0 && n <= kMostSide; };
    expect(fits(n_rows) && fits(n_inputs), "rows and inputs must be 1 to 2^26");
    return layout(format, n_rows, n_inputs);
  }
  Packed shape_;
  std::shared_ptr<uint8_t> memory_;
};

}  // namespace onhand
