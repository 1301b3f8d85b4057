// Compiled without contraction: a product and a sum are rounded one after the other, as in numpy.
#include "sampling.h"

#include <algorithm>
#include <cstring>
#include <functional>

namespace onhand {
namespace {

constexpr uint8_t kForbidden = 1, kSeen = 2;
constexpr double kLowest = -708;  // below it exp is 0
constexpr int kFewHighest = 1024;

double exp_of(double x) {
  constexpr double kLog2E = 1.4426950408889634, kRound = 0x1.8p52;
  constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  constexpr double kSeries[] = {
      1 / 6227020800.0, 1 / 479001600.0, 1 / 39916800.0, 1 / 3628800.0, 1 / 362880.0,
      1 / 40320.0,      1 / 5040.0,      1 / 720.0,      1 / 120.0,     1 / 24.0,
      1 / 6.0,          1 / 2.0,         1.0,            1.0};
  double rest = x < kLowest ? kLowest : x;
  // The sum's lowest bits are the nearest whole number, ties to even.
  const double shifted = rest * kLog2E + kRound;
  const double power = shifted - kRound;
  rest -= power * kLn2High;
  rest -= power * kLn2Low;
  double sum = kSeries[0];
  for (int i = 1; i < 14; ++i) {
    sum *= rest;
    sum += kSeries[i];
  }
  uint64_t bits;
  std::memcpy(&bits, &shifted, 8);
  bits = (bits + 1023) << 52;
  double scale;
  std::memcpy(&scale, &bits, 8);
  return x < kLowest ? 0 : sum * scale;
}

// The k-th highest of n scores, 0 < k < n.
float kth_highest(const float* scores, int n, int k, std::vector<float>& kept) {
  if (k > kFewHighest) {
    kept.assign(scores, scores + n);
    std::nth_element(kept.begin(), kept.begin() + (n - k), kept.end());
    return kept[n - k];
  }
  const std::greater<float> lowest_first;
  kept.assign(scores, scores + k);
  std::make_heap(kept.begin(), kept.end(), lowest_first);
  for (int i = k; i < n;) {
    // Most of a vocabulary is below: sixteen at a time.
    if (i + kRows <= n) {
      bool any = false;
      for (int j = 0; j < kRows; ++j) any |= scores[i + j] > kept.front();
      if (!any) {
        i += kRows;
        continue;
      }
    }
    for (const int end = std::min(n, i + kRows); i < end; ++i) {
      if (!(scores[i] > kept.front())) continue;
      std::pop_heap(kept.begin(), kept.end(), lowest_first);
      kept.back() = scores[i];
      std::push_heap(kept.begin(), kept.end(), lowest_first);
    }
  }
  return kept.front();
}

}  // namespace

Chooser::Chooser(const Sampling& how, int vocab_size, const uint8_t* forbidden)
    : how_(how), vocab_size_(vocab_size) {
  if (how.penalty == 1 && forbidden == nullptr) return;
  flags_.resize(vocab_size);
  if (forbidden == nullptr) return;
  for (int i = 0; i < vocab_size; ++i) flags_[i] = forbidden[i] != 0 ? kForbidden : 0;
}

void Chooser::see(int token) {
  ++n_seen_;
  if (token >= 0 && token < vocab_size_ && how_.penalty != 1) flags_[token] |= kSeen;
}

void Chooser::adjust(float* scores, int first, int n) const {
  if (flags_.empty()) return;
  const uint8_t* flags = flags_.data() + first;
  for (int i = 0; i < n;) {
    uint64_t eight = 1;
    if (i + 8 <= n) std::memcpy(&eight, flags + i, 8);
    if (eight == 0) {
      i += 8;
      continue;
    }
    if (eight == kForbidden * uint64_t{0x0101010101010101}) {
      std::fill_n(scores + i, 8, -std::numeric_limits<float>::infinity());
      i += 8;
      continue;
    }
    for (const int end = std::min(n, i + 8); i < end; ++i) {
      float& score = scores[i];
      if (flags[i] & kSeen) score = score < 0 ? score * how_.penalty : score / how_.penalty;
      if (flags[i] & kForbidden) score = -std::numeric_limits<float>::infinity();
    }
  }
}

int Chooser::draw(const float* scores, const int32_t* ids, int n, float top, double random,
                  ChoiceSpace& space) const {
  space.fit(n);
  double* weights = space.weights.data();
  int32_t* kept = space.ids.data();
  int m = 0;
  if (how_.top_k > 0 && how_.top_k < n) {
    const float least = kth_highest(scores, n, how_.top_k, space.highest);
    for (int i = 0; i < n; ++i) {
      if (!(scores[i] >= least)) continue;
      kept[m] = ids == nullptr ? i : ids[i];
      weights[m++] = scores[i];
    }
  } else {
    for (; m < n; ++m) {
      kept[m] = ids == nullptr ? m : ids[m];
      weights[m] = scores[m];
    }
  }
  const double most = top;
  for (int i = 0; i < m; ++i) weights[i] = (weights[i] - most) / how_.temperature;
  for (int i = 0; i < m; ++i) weights[i] = exp_of(weights[i]);
  if (how_.top_p < 1) m = keep_likeliest(m, space);
  n = m;
  m = 0;
  double sum = 0;
  for (int i = 0; i < n; ++i) {
    if (!(weights[i] >= how_.min_p && weights[i] > 0)) continue;
    sum += weights[i];
    kept[m] = kept[i];
    weights[m++] = sum;
  }
  const double* place = std::upper_bound(weights, weights + m, random * sum);
  return kept[std::min<std::ptrdiff_t>(place - weights, m - 1)];
}

int Chooser::keep_likeliest(int n, ChoiceSpace& space) const {
  using Weighed = std::pair<double, int32_t>;
  double* weights = space.weights.data();
  int32_t* kept = space.ids.data();
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += weights[i];
  const double limit = how_.top_p * sum;
  // See `_top_p`: what is below the mean of what may be dropped needs no sorting, and of what is
  // not only as many of the likeliest are sorted as hold the probability.
  const double lowest[] = {(1 - how_.top_p) / how_.top_p * limit / n, 0};
  for (const double low : lowest) {
    space.order.clear();
    space.order.reserve(space.ids.size());
    for (int i = 0; i < n; ++i)
      if (weights[i] >= low) space.order.push_back({weights[i], i});
    double held = 0;
    auto begin = space.order.begin();
    for (std::ptrdiff_t some = 64; begin != space.order.end(); some *= 4) {
      const auto end = begin + std::min(some, space.order.end() - begin);
      const std::greater<Weighed> first;
      if (end != space.order.end()) std::nth_element(begin, end, space.order.end(), first);
      std::sort(begin, end, first);
      for (; begin != end; ++begin) {
        held += begin->first;
        if (held < limit) continue;
        const Weighed last = *begin;
        int m = 0;
        for (int i = 0; i < n; ++i) {
          if (Weighed{weights[i], i} < last) continue;
          kept[m] = kept[i];
          weights[m++] = weights[i];
        }
        return m;
      }
    }
  }
  return n;
}

}  // namespace onhand
