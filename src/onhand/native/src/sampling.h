// Choosing a token from a row of scores, as `onhand/device/sampling.py` does, which says what each
// step is: the same operations in the same order, so that a seed gives the same tokens in both.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "format.h"

namespace onhand {

struct Sampling {
  double temperature = 0;  // 0: the highest score, always
  int top_k = 0;           // 0: all
  double top_p = 1, min_p = 0;
  float penalty = 1;  // of tokens that were seen
};

// The highest of some scores, of equal ones that of the first token; in whatever order they come.
struct Best {
  float top = -std::numeric_limits<float>::infinity();
  int token = -1;
  bool is_nan = false;  // one of them is no number

  void merge(const Best& other) {
    is_nan |= other.is_nan;
    offer(other.top, other.token);
  }

  // Look at the n scores of tokens `first` and up.
  template <class Simd>
  void look(const float* scores, int n, int first) {
    constexpr int kBlock = 4 * kRows;
    for (int i = 0; i < n; i += kBlock) {
      const int end = i + kBlock < n ? i + kBlock : n;
      const float most = highest<Simd>(scores + i, end - i);
      if (most < top || most == kNone) continue;
      int at = i;
      while (scores[at] != most) ++at;
      offer(most, first + at);
    }
  }

 private:
  static constexpr float kNone = -std::numeric_limits<float>::infinity();

  void offer(float score, int of) {
    if (!(score > top) && !(score == top && of < token)) return;
    top = score;
    token = of;
  }

  template <class Simd>
  float highest(const float* x, int n) {
    float most[kRows];
    int bad[kRows] = {};
    for (float& one : most) one = kNone;
    int i = 0;
    for (; i + kRows <= n; i += kRows)
      for (int j = 0; j < kRows; ++j) {
        bad[j] |= x[i + j] != x[i + j];
        most[j] = x[i + j] > most[j] ? x[i + j] : most[j];
      }
    for (; i < n; ++i) {
      bad[0] |= x[i] != x[i];
      most[0] = x[i] > most[0] ? x[i] : most[0];
    }
    float result = kNone;
    for (int j = 0; j < kRows; ++j) {
      is_nan |= bad[j] != 0;
      result = most[j] > result ? most[j] : result;
    }
    return result;
  }
};

// What choosing works in: grows to what a vocabulary needs, and stays.
struct ChoiceSpace {
  std::vector<float> highest;
  std::vector<int32_t> ids;
  std::vector<double> weights;
  std::vector<std::pair<double, int32_t>> order;

  void fit(int n) {
    if (ids.size() < static_cast<size_t>(n)) {
      ids.resize(n);
      weights.resize(n);
    }
  }
};

// How the tokens of one answer are chosen, and what it has seen.
class Chooser {
 public:
  // `forbidden` has a byte for each token, or is null.
  Chooser(const Sampling& how, int vocab_size, const uint8_t* forbidden);

  bool is_greedy() const { return how_.temperature == 0; }
  int n_seen() const { return n_seen_; }
  int vocab_size() const { return vocab_size_; }

  // Count a token as seen, for the penalty; each is given once.
  void see(int token);

  // Change the scores of tokens `first` to first + n: the penalty, and -inf for what is forbidden.
  void adjust(float* scores, int first, int n) const;

  // Draw one of n tokens by their adjusted scores, of which `top` is the highest, a finite number;
  // `ids`, ascending, says which they are, or is null. `random` is at least 0 and below 1.
  int draw(const float* scores, const int32_t* ids, int n, float top, double random,
           ChoiceSpace& space) const;

 private:
  // Drop those that are not among the likeliest; return how many are left.
  int keep_likeliest(int n, ChoiceSpace& space) const;

  Sampling how_;
  int vocab_size_;
  int n_seen_ = 0;
  std::vector<uint8_t> flags_;  // by token, where there are any
};

// A choice of a step: who chooses, by which random number, and what came of it.
struct Choice {
  static constexpr int kNoToken = -1, kNan = -2, kInfinite = -3;

  const Chooser* by = nullptr;
  double random = 0;
  int token = kNoToken;  // or why there is none

  // Take the best token where it is chosen, or say what is wrong; false if one is to be drawn.
  bool settle(const Best& best) {
    token = best.is_nan                 ? kNan
            : best.token < 0            ? kNoToken
            : std::isinf(best.top)      ? kInfinite
                                        : best.token;
    return token < 0 || by->is_greedy();
  }
};

}  // namespace onhand
