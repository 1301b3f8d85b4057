// How long products of one matrix take, as steps compute them.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

#include "format.h"
#include "kernels.h"
#include "pool.h"
#include "products.h"

namespace onhand {

// Seconds of each of `runs` products of a matrix with rows of inputs, after one that is not timed.
inline std::vector<double> time_products(const Kernels& kernels, const Packed& w, int rows,
                                         int n_threads, int runs) {
  struct alignas(64) Line { uint8_t at[64]; };
  const size_t groups = size_t(rows) * w.n_groups, width = size_t(w.n_groups) * w.format.group;
  std::vector<Line> codes((rows * width + 63) / 64);
  std::vector<float> scales(groups, 1.0f), minus_sums(groups, 0.0f);
  std::vector<int32_t> starts(groups, 0);
  const size_t stride = size_t(w.n_tiles) * kRows;
  std::vector<float> out(size_t(std::max(rows, kRows)) * stride);
  std::vector<std::vector<Line>> scratch(n_threads, std::vector<Line>((kScratch + 63) / 64));
  const Inputs x{w.n_groups, w.format.group, reinterpret_cast<int8_t*>(codes[0].at), scales.data(),
                 starts.data(), minus_sums.data()};
  Pool pool(n_threads);
  // A sixteenth of a thread's share, in fours, as in steps.
  const int chunk = std::max({w.n_tiles / (16 * n_threads) / 4 * 4, 1});
  const auto job = [&](int thread) {
    pool.for_each_chunk(w.n_tiles, chunk, thread, [&](int begin, int end) {
      kernels.product(w, x, rows, out.data(), stride, begin, end, scratch[thread][0].at);
    });
  };
  std::vector<double> seconds;
  for (int i = 0; i <= runs; ++i) {
    const auto begun = std::chrono::steady_clock::now();
    pool.run(job);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begun;
    if (i > 0) seconds.push_back(taken.count());
  }
  return seconds;
}

}  // namespace onhand
