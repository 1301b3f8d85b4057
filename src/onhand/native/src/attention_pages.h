// A page of keys and values beside some queries of their head, by vectors: each query's scores and
// sums are chains of its own, the same bits whatever is computed beside them.
#pragma once

#include <algorithm>
#include <type_traits>

#include "model.h"

namespace onhand {

// What pages hold: how sixteen numbers are read, and whether scales come behind them.
template <class Simd>
struct Halves {
  static constexpr int kBytes = 2;
  static constexpr bool kScaled = false;
  static typename Simd::Floats load(const uint8_t* p) { return Simd::halves(p); }
};
template <class Simd>
struct Codes {
  static constexpr int kBytes = 1;
  static constexpr bool kScaled = true;
  static typename Simd::Floats load(const uint8_t* p) { return Simd::signed_bytes(p); }
};

// Of a head's part of a page.
inline const float* scales_of(const uint8_t* part, int wide) {
  return reinterpret_cast<const float*>(part + size_t(wide) * kPage);
}

// Queries of one key head: of some rows, `shared` each.
struct Queries {
  const float* first;
  size_t stride;  // from row to row
  int shared, n, dim;
  const float* at(int m) const { return first + m / shared * stride + m % shared * dim; }
};

struct Seen { int begin, end; };  // positions

template <class Simd, class Numbers>
class PageVectors {
 public:
  PageVectors(Workspace::Attention& own, int dim, int wide) : own_(own), dim_(dim), wide_(wide) {}

  // Take queries, side by side as blocks of (dim, queries).
  void take(const Queries& queries) {
    n_ = queries.n;
    blocks([&](auto size, int first) {
      float* to = own_.queries.data() + first * dim_;
      for (int q = 0; q < size; ++q) {
        const float* from = queries.at(first + q);
        for (int d = 0; d < dim_; ++d) to[d * size + q] = from[d];
      }
    });
  }

  // Score a page's first `high` keys; the scores of others are anything. `next` is read soon.
  void score(const uint8_t* keys, const uint8_t* next, int high) {
    blocks([&](auto size, int first) {
      const float* queries = own_.queries.data() + first * dim_;
      for (int p = 0; p < high; p += kSide * kLanes) {
        const size_t skip = size_t(Numbers::kBytes) * p * wide_;
        float* to = own_.scores.data() + first * kPage + p;
        score<size()>(keys + skip, next + skip, queries, to);
        if constexpr (Numbers::kScaled)
          for (int q = 0; q < size; ++q) multiply(to + q * kPage, scales_of(keys, wide_) + p, kSide);
      }
    });
  }

  // Add the values that are seen, each times its share, to the sums. `next` is read soon.
  void mix(const uint8_t* values, const uint8_t* next, Seen seen) {
    if constexpr (Numbers::kScaled)
      for (int m = 0; m < n_; ++m)
        multiply(own_.scores.data() + m * kPage, scales_of(values, wide_), kPage / kLanes);
    blocks([&](auto size, int first) {
      const float* shares = own_.scores.data() + first * kPage;
      float* sums = own_.sums.data() + first * wide_;
      int d = 0;
      for (; d + kSide * kLanes <= wide_; d += kSide * kLanes)
        mix<size(), kSide>(values, next, shares, d, seen, sums);
      if (d < wide_) mix<size(), 1>(values, next, shares, d, seen, sums);
    });
  }

 private:
  using Floats = typename Simd::Floats;
  static constexpr int kSide = Simd::kSide;

  // Call use with the largest block that `n` queries fill.
  template <int Most, class Use>
  static int block(int n, Use use) {
    if (n >= Most) use(std::integral_constant<int, Most>{});
    else if constexpr (Most > 1) return block<Most - 1>(n, use);
    return Most;
  }
  template <class Use>
  void blocks(Use use) const {
    for (int m = 0; m < n_;)
      m += block<Simd::kQueries>(n_ - m, [&](auto size) { use(size, m); });
  }

  static void multiply(float* x, const float* by, int n_vectors) {
    for (int v = 0; v < n_vectors; ++v, x += kLanes, by += kLanes)
      Simd::store(x, Simd::times(Simd::load(x), Simd::load(by)));
  }

  template <int N>
  void score(const uint8_t* keys, const uint8_t* next, const float* queries, float* to) const {
    constexpr int kVector = Numbers::kBytes * kLanes;
    Floats sum[N][kSide];
    for (auto& one : sum)
      for (auto& part : one) part = Simd::zero();
    for (int d = 0; d < dim_; ++d) {
      Floats key[kSide];
      Simd::prefetch(next + d * kVector * kSide);
      for (int s = 0; s < kSide; ++s) key[s] = Numbers::load(keys + (s * wide_ + d) * kVector);
      for (int q = 0; q < N; ++q) {
        const auto query = Simd::all(queries[d * N + q]);
        for (int s = 0; s < kSide; ++s) sum[q][s] = Simd::fused(key[s], query, sum[q][s]);
      }
    }
    for (int q = 0; q < N; ++q)
      for (int s = 0; s < kSide; ++s) Simd::store(to + q * kPage + s * kLanes, sum[q][s]);
  }

  template <int N, int Side>
  void mix(const uint8_t* values, const uint8_t* next, const float* shares, int d, Seen seen,
           float* sums) const {
    Floats sum[N][Side];
    for (int q = 0; q < N; ++q)
      for (int s = 0; s < Side; ++s) sum[q][s] = Simd::load(sums + q * wide_ + d + s * kLanes);
    for (int p = seen.begin; p < seen.end; ++p) {
      const size_t skip = Numbers::kBytes * (size_t(p) * wide_ + d);
      Floats value[Side];
      Simd::prefetch(next + skip);
      for (int s = 0; s < Side; ++s)
        value[s] = Numbers::load(values + skip + s * Numbers::kBytes * kLanes);
      for (int q = 0; q < N; ++q) {
        const auto share = Simd::all(shares[q * kPage + p]);
        for (int s = 0; s < Side; ++s) sum[q][s] = Simd::fused(value[s], share, sum[q][s]);
      }
    }
    for (int q = 0; q < N; ++q)
      for (int s = 0; s < Side; ++s) Simd::store(sums + q * wide_ + d + s * kLanes, sum[q][s]);
  }

  Workspace::Attention& own_;
  const int dim_, wide_;
  int n_ = 0;  // queries
};

}  // namespace onhand
