// What a LoRA adapter adds to a decoder's products, in memory of its own.
#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"

namespace onhand {

// Added to one product: second (first x).
struct LowRank {
  int rank = 0, n_inputs = 0;
  int stride = 0;                 // outputs, up to whole vectors
  const float* first = nullptr;   // (rank, n_inputs)
  const float* second = nullptr;  // (rank, stride)

  template <class Simd>
  void lower(const float* x, float* low) const {
    for (int j = 0; j < rank; ++j) low[j] = dot<Simd>(first + size_t(j) * n_inputs, x, n_inputs);
  }

  // Add to outputs `begin` to `end`, which lie at `to`. Each is one chain over the rank, whatever
  // is asked for beside it.
  template <class Simd>
  void add(const float* low, float* to, int begin, int end) const {
    for (int i = begin; i < end;) {
      const int start = i / kRows * kRows, stop = std::min(end, start + kRows);
      float whole[kRows] = {};
      std::copy(to + (i - begin), to + (stop - begin), whole + (i - start));
      auto sum = Simd::load(whole);
      for (int j = 0; j < rank; ++j)
        sum = Simd::fused(Simd::load(second + size_t(j) * stride + start), Simd::all(low[j]), sum);
      Simd::store(whole, sum);
      std::copy(whole + (i - start), whole + (stop - start), to + (i - begin));
      i = stop;
    }
  }
};

class Adapter {
 public:
  explicit Adapter(int n_matrices) : parts_(n_matrices), numbers_(2 * size_t(n_matrices)) {}

  // Factors of a matrix: first (rank, n_inputs), second (n_outputs, rank).
  void set(int matrix, int rank, const float* first, int n_inputs, const float* second,
           int n_outputs) {
    const int stride = (n_outputs + kRows - 1) / kRows * kRows;
    std::vector<float>& low = numbers_[2 * size_t(matrix)];
    std::vector<float>& high = numbers_[2 * size_t(matrix) + 1];
    low.assign(first, first + size_t(rank) * n_inputs);
    high.assign(size_t(rank) * stride, 0.0f);
    for (int i = 0; i < n_outputs; ++i)
      for (int j = 0; j < rank; ++j) high[size_t(j) * stride + i] = second[size_t(i) * rank + j];
    parts_[matrix] = {rank, n_inputs, stride, low.data(), high.data()};
    most_rank_ = std::max(most_rank_, rank);
  }

  const LowRank& operator[](int matrix) const { return parts_[matrix]; }
  int most_rank() const { return most_rank_; }

  const void* owner = nullptr;  // whose matrices it adds to

 private:
  std::vector<LowRank> parts_;
  std::vector<std::vector<float>> numbers_;
  int most_rank_ = 0;
};

// What an adapter adds to a matrix; null for nothing.
inline const LowRank* added(const Adapter* adapter, int matrix) {
  return adapter != nullptr && (*adapter)[matrix].rank > 0 ? &(*adapter)[matrix] : nullptr;
}

}  // namespace onhand
