// Products of a packed matrix with rows of inputs, over any `Simd`.
//
// Every output is one chain: over groups from first to last, f = fma(scale * input scale, dot, f).
// It is the same whatever rows are computed beside it, so an answer does not depend on how a
// prompt was cut or on what else was in the batch.
#pragma once

#include <algorithm>
#include <type_traits>

#include "bf16.h"
#include "format.h"
#include "pairs.h"
#include "tiles.h"
#include "unpack.h"

namespace onhand {

// Tiles that stream beside each other: as many sequences of addresses, which keep more of the
// memory's answers under way than one.
constexpr int kBeside = 4;

// `Tiles` tiles times `Rows` rows of inputs, of which the first `n_rows` are wanted:
// out[row * stride + tile * 16 + lane].
template <class Simd, int Bits, int Group, bool Symmetric, int Rows, int Tiles>
ONHAND_INLINE void stream_tiles(const uint8_t* block, size_t tile_bytes, const Inputs& x,
                                int n_rows, float* out, size_t stride) {
  constexpr Format kFormat{Bits, Group, Symmetric};
  const size_t width = static_cast<size_t>(x.n_groups) * Group;
  typename Simd::Floats result[Tiles][Rows];
  for (auto& tile : result)
    for (auto& one : tile) one = Simd::zero();
  for (int g = 0; g < x.n_groups; ++g, block += kFormat.block_bytes()) {
    const int8_t* inputs = x.codes + static_cast<size_t>(g) * Group;
    const size_t ahead = reach(size_t(g) * kFormat.block_bytes(), tile_bytes, Tiles);
#pragma GCC unroll 4
    for (int t = 0; t < Tiles; ++t) {
      const uint8_t* codes = block + t * tile_bytes;
      typename Simd::Ints sum[Rows];
      for (int m = 0; m < Rows; ++m)
        sum[m] = Simd::ints(Symmetric ? x.starts[m * x.n_groups + g] : 0);
      unpack<Simd, Bits, Group>(codes, ahead, [&](int step, auto line) {
        for (int m = 0; m < Rows; ++m)
          sum[m] = Simd::template dot<Bits>(sum[m], line, inputs + m * width + kStep * step);
      });
      const auto scales = Simd::halves(codes + kFormat.code_bytes());
      for (int m = 0; m < Rows; ++m) {
        auto dot = Simd::real(sum[m]);
        if constexpr (!Symmetric) {
          const auto zeros = Simd::bytes(codes + kFormat.code_bytes() + 2 * kRows);
          dot = Simd::fused(zeros, Simd::all(x.minus_sums[m * x.n_groups + g]), dot);
        }
        const auto by = Simd::times(scales, x.scales[m * x.n_groups + g]);
        result[t][m] = Simd::fused(by, dot, result[t][m]);
      }
    }
  }
  for (int t = 0; t < Tiles; ++t)
    for (int m = 0; m < Rows && m < n_rows; ++m)
      Simd::store(out + m * stride + t * kRows, result[t][m]);
}

// Inputs that fit the caches while the rows of a prompt pass over two tiles.
constexpr int kChunk = 1024;
constexpr size_t kChunkScratch =
    static_cast<size_t>(kChunk) * kRows * 2 + kChunk / 32 * kRows * 2 * 8;
constexpr size_t kScratch = std::max({kChunkScratch, kPanelScratch, kPairScratch});

// Two tiles of some groups, unpacked: steps of both side by side, scales and zeros as floats.
struct Unpacked {
  uint8_t* codes;
  float* scales;
  float* zeros;
};

template <class Simd, int Bits, int Group, bool Symmetric>
inline void unpack_tile(const uint8_t* block, int n_groups, const Unpacked& to, int side) {
  constexpr Format kFormat{Bits, Group, Symmetric};
  for (int g = 0; g < n_groups; ++g, block += kFormat.block_bytes()) {
    uint8_t* codes = to.codes + (static_cast<size_t>(g) * (Group / kStep) * 2 + side) * kLine;
    unpack<Simd, Bits, Group>(block, kReach, [&](int step, auto line) {
      Simd::keep(codes + 2 * kLine * step, line);
    });
    Simd::store(to.scales + (2 * g + side) * kRows, Simd::halves(block + kFormat.code_bytes()));
    if constexpr (!Symmetric)
      Simd::store(to.zeros + (2 * g + side) * kRows,
                  Simd::bytes(block + kFormat.code_bytes() + 2 * kRows));
  }
}

// Two unpacked tiles times `Rows` rows; `first` begins the chains, else they go on from `out`.
template <class Simd, int Bits, int Group, bool Symmetric, int Rows>
ONHAND_INLINE void block_tile(const Unpacked& w, int first_group, int n_groups, const Inputs& x,
                              float* out, size_t stride, bool first) {
  const size_t width = static_cast<size_t>(x.n_groups) * Group;
  typename Simd::Floats left[Rows], right[Rows];
  for (int m = 0; m < Rows; ++m) {
    left[m] = first ? Simd::zero() : Simd::load(out + m * stride);
    right[m] = first ? Simd::zero() : Simd::load(out + m * stride + kRows);
  }
  for (int g = 0; g < n_groups; ++g) {
    const int place = first_group + g;
    typename Simd::Ints a[Rows], b[Rows];
    for (int m = 0; m < Rows; ++m)
      a[m] = b[m] = Simd::ints(Symmetric ? x.starts[m * x.n_groups + place] : 0);
    const int8_t* inputs = x.codes + static_cast<size_t>(place) * Group;
    const uint8_t* codes = w.codes + static_cast<size_t>(g) * (Group / kStep) * 2 * kLine;
    for (int step = 0; step < Group / kStep; ++step) {
      const auto one = Simd::line(codes + 2 * kLine * step);
      const auto two = Simd::line(codes + 2 * kLine * step + kLine);
      for (int m = 0; m < Rows; ++m) {
        a[m] = Simd::template dot<Bits>(a[m], one, inputs + m * width + kStep * step);
        b[m] = Simd::template dot<Bits>(b[m], two, inputs + m * width + kStep * step);
      }
    }
    const auto scale_a = Simd::load(w.scales + 2 * g * kRows);
    const auto scale_b = Simd::load(w.scales + 2 * g * kRows + kRows);
    for (int m = 0; m < Rows; ++m) {
      auto dot_a = Simd::real(a[m]), dot_b = Simd::real(b[m]);
      if constexpr (!Symmetric) {
        const auto sum = Simd::all(x.minus_sums[m * x.n_groups + place]);
        dot_a = Simd::fused(Simd::load(w.zeros + 2 * g * kRows), sum, dot_a);
        dot_b = Simd::fused(Simd::load(w.zeros + 2 * g * kRows + kRows), sum, dot_b);
      }
      const float scale = x.scales[m * x.n_groups + place];
      left[m] = Simd::fused(Simd::times(scale_a, scale), dot_a, left[m]);
      right[m] = Simd::fused(Simd::times(scale_b, scale), dot_b, right[m]);
    }
  }
  for (int m = 0; m < Rows; ++m) {
    Simd::store(out + m * stride, left[m]);
    Simd::store(out + m * stride + kRows, right[m]);
  }
}

// Tiles `begin` to `end` of a matrix times some rows: out[row * stride + tile * 16 + lane].
template <class Simd, int Bits, int Group, bool Symmetric>
struct Product {
  template <int Rows, int Tiles>
  static void stream(const Packed& w, const Inputs& x, int n_rows, float* out, size_t stride,
                     int tile) {
    stream_tiles<Simd, Bits, Group, Symmetric, Rows, Tiles>(w.tile(tile), w.tile_bytes(), x, n_rows,
                                                            out + kRows * tile, stride);
  }

  // A few rows: tiles are read once from memory, and again from the first cache. Up to eight rows
  // are read, as unpacking a tile twice costs more than rows that nobody wants.
  static void few(const Packed& w, const Inputs& x, int rows, float* out, size_t stride, int begin,
                  int end) {
    constexpr int kTogether = Simd::kStreams ? kBeside : 1;
    int tile = begin;
    for (; tile + kTogether <= end; tile += kTogether)
      pass<kTogether>(w, x, rows, out, stride, tile);
    for (; tile < end; ++tile) pass<1>(w, x, rows, out, stride, tile);
  }

  template <int Tiles>
  static void pass(const Packed& w, const Inputs& x, int rows, float* out, size_t stride,
                   int tile) {
    for (int m = 0; m < rows;) {
      const int left = rows - m;
      const auto next = [&](auto n) {
        stream<n(), Tiles>(w, x.from(m), left, out + m * stride, stride, tile);
        m += n();
      };
      if constexpr (Simd::kStream == 8) {
        if (left > 6) {
          next(std::integral_constant<int, 8>{});
          continue;
        }
        if (left > 4) {
          next(std::integral_constant<int, 6>{});
          continue;
        }
      }
      if (left > 2) next(std::integral_constant<int, 4>{});
      else if (left > 1) next(std::integral_constant<int, 2>{});
      else next(std::integral_constant<int, 1>{});
    }
  }

  // Many rows: two tiles at a time are unpacked once, and the rows pass over them.
  static void many(const Packed& w, const Inputs& x, int rows, float* out, size_t stride, int begin,
                   int end, uint8_t* scratch) {
    constexpr Format kFormat{Bits, Group, Symmetric};
    constexpr int kGroups = kChunk / Group;
    float* floats = reinterpret_cast<float*>(scratch + static_cast<size_t>(kChunk) * kRows * 2);
    const Unpacked buffer{scratch, floats, floats + 2 * kGroups * kRows};
    int tile = begin;
    for (; tile + 2 <= end; tile += 2) {
      for (int g = 0; g < w.n_groups; g += kGroups) {
        const int n = std::min(kGroups, w.n_groups - g);
        const size_t skip = static_cast<size_t>(g) * kFormat.block_bytes();
        for (int side = 0; side < 2; ++side)
          unpack_tile<Simd, Bits, Group, Symmetric>(w.tile(tile + side) + skip, n, buffer, side);
        float* to = out + kRows * tile;
        int m = 0;
        for (; m + Simd::kBlock <= rows; m += Simd::kBlock)
          block_tile<Simd, Bits, Group, Symmetric, Simd::kBlock>(buffer, g, n, x.from(m),
                                                                 to + m * stride, stride, g == 0);
        for (; m < rows; ++m)
          block_tile<Simd, Bits, Group, Symmetric, 1>(buffer, g, n, x.from(m), to + m * stride,
                                                      stride, g == 0);
      }
    }
    if (tile < end) few(w, x, rows, out, stride, tile, end);
  }

  static void run(const Packed& w, const Inputs& x, int rows, float* out, size_t stride, int begin,
                  int end, uint8_t* scratch) {
    if (rows <= Simd::kFewRows) few(w, x, rows, out, stride, begin, end);
    else if constexpr (Simd::kTiles)
      TileProduct<Simd, Bits, Group, Symmetric>::run(w, x, rows, out, stride, begin, end, scratch);
    else if constexpr (Simd::kPairs)
      PairProduct<Simd, Group, Symmetric>::template run<Bits>(w, x, rows, out, stride, begin, end,
                                                              scratch);
    else many(w, x, rows, out, stride, begin, end, scratch);
  }
};

// Call use(bits, group, symmetric) with the numbers of a format as constants.
template <class Use>
inline void by_format(const Format& format, Use use) {
  const auto by_zero = [&](auto bits, auto group) {
    format.symmetric ? use(bits, group, std::true_type{}) : use(bits, group, std::false_type{});
  };
  const auto by_group = [&](auto bits) {
    switch (format.group) {
      case 32: return by_zero(bits, std::integral_constant<int, 32>{});
      case 64: return by_zero(bits, std::integral_constant<int, 64>{});
      default: return by_zero(bits, std::integral_constant<int, 128>{});
    }
  };
  switch (format.bits) {
    case 2: return by_group(std::integral_constant<int, 2>{});
    case 3: return by_group(std::integral_constant<int, 3>{});
    case 4: return by_group(std::integral_constant<int, 4>{});
    default: return by_group(std::integral_constant<int, 8>{});
  }
}

template <class Simd>
inline void product(const Packed& w, const Inputs& x, int rows, float* out, size_t stride,
                    int begin, int end, uint8_t* scratch) {
  by_format(w.format, [&](auto bits, auto group, auto symmetric) {
    Product<Simd, bits(), group(), symmetric()>::run(w, x, rows, out, stride, begin, end, scratch);
  });
}

// The same of inputs in bf16, where the processor has tiles.
template <class Simd>
inline void product(const Packed& w, const Bf16Inputs& x, int rows, float* out, size_t stride,
                    int begin, int end, uint8_t* scratch) {
  by_format(w.format, [&](auto bits, auto group, auto symmetric) {
    Bf16Product<Simd, bits(), group(), symmetric()>::run(w, x, rows, out, stride, begin, end,
                                                         scratch);
  });
}

}  // namespace onhand
