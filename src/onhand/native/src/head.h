// The head of a step: from a row of the stream to its scores, or to the token that they choose.
//
// Scores of a few tiles at a time stay in the caches: whoever wants them all gets a copy, the
// highest is found on the way, and where nothing else is wanted no more is kept.
//
// A head of two stages scores with a coarse copy first, and then anew, by the head itself, the
// tiles whose best scores were the highest; a token is chosen among those.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "coarse.h"
#include "model.h"
#include "norms.h"
#include "products.h"
#include "quantize.h"

namespace onhand {

template <class Simd>
class Head {
 public:
  Head(const Model& model, Workspace& work, Pool& pool, const std::vector<Row>& rows, int thread)
      : m_(model), w_(work), pool_(pool), rows_(rows), thread_(thread),
        alone_(rows.size() <= kAloneRows), own_(work.own[alone_ ? thread : 0]),
        space_(work.heads[thread]) {}

  // Every thread of a step calls it when its own rows are done; `Workspace::expect` came before.
  void run() {
    const int n = n_asked();
    if (n == 0) return;
    if (!alone_) pool_.meet();
    const Range mine = alone_ ? Range{0, n} : share(n);
    for (int k = mine.begin; k < mine.end; ++k) {
      norm<Simd>(m_.final_norm, m_.epsilon, stream(k), normed(k), m_.width);
      round(normed(k), m_.width, 0, k);
      if (const LowRank* by = added(row(k).adapter, m_.head.number))
        by->lower<Simd>(normed(k), low(k));
    }
    if (!alone_) pool_.meet();
    for (size_t f = 0; f + 1 < m_.head.factors.size(); ++f) factor(f, mine);
    for (Best& one : space_.best) one = Best{};
    const Range rows = share(n);
    if (w_.two_stage) {
      scan();
      pool_.meet();
      for (int k = rows.begin; k < rows.end; ++k)
        pick_highest(tops(k), m_.coarse.n_tiles, m_.n_candidates, w_.picked[k]);
      pool_.meet();
      for (int k = 0; k < n; ++k) rescore(k);
    } else {
      score();
    }
    pool_.meet();
    for (int k = rows.begin; k < rows.end; ++k) choose(k);
  }

 private:
  Range share(int n) const { return pool_.share(n, thread_); }
  int n_asked() const { return static_cast<int>(w_.asked.size()); }
  const Row& row(int k) const { return rows_[w_.asked[k]]; }
  const float* stream(int k) const { return own_.stream.data() + size_t(w_.asked[k]) * m_.width; }
  float* normed(int k) { return own_.normed.data() + size_t(w_.asked[k]) * m_.width; }
  float* drawn(int k) { return w_.drawn.data() + size_t(k) * padded_vocab(m_); }
  int32_t* drawn_ids(int k) { return w_.drawn_ids.data() + size_t(k) * padded_vocab(m_); }
  float* tops(int k) { return w_.tops.data() + size_t(k) * m_.coarse.n_tiles; }
  float* low(int k) {
    return w_.heads[alone_ ? thread_ : 0].low.data() + size_t(k) * w_.most_rank;
  }

  // Round n floats to row k of the inputs of a factor.
  void round(const float* x, int n, size_t f, int k) {
    const Packed& w = m_.head.factors[f];
    quantize<Simd>(x, n, w, own_.quantized.inputs(w).from(k), 0, w.n_groups);
    if (!w_.two_stage || f + 1 < m_.head.factors.size()) return;
    quantize<Simd>(x, n, m_.coarse, own_.coarse.inputs(m_.coarse).from(k), 0, m_.coarse.n_groups);
  }

  void multiply(const Packed& w, const Inputs& x, int n, float* out, size_t stride, Range tiles) {
    product<Simd>(w, x, n, out, stride, tiles.begin, tiles.end, w_.scratch[thread_].data()->at);
  }

  // A factor that is not the last.
  void factor(size_t f, Range mine) {
    const Packed& w = m_.head.factors[f];
    const size_t stride = size_t(w.n_tiles) * kRows;
    multiply(w, own_.quantized.inputs(w), n_asked(), w_.between.data(), stride,
             share(w.n_tiles));
    pool_.meet();
    for (int k = mine.begin; k < mine.end; ++k)
      round(w_.between.data() + k * stride, w.n_rows, f + 1, k);
    if (!alone_) pool_.meet();
  }

  // Call use(k, scores, first, n) for the products of all rows with a matrix, some of its outputs
  // at a time, each on one of the threads.
  template <class Use>
  void each_part(const Packed& w, const Inputs& x, Use use) {
    float* scores = space_.scores.data();
    pool_.for_each_chunk(w.n_tiles, kHeadTiles, thread_, [&](int begin, int end) {
      multiply(w.part(begin, end - begin), x, n_asked(), scores, kStride, {0, end - begin});
      const int first = begin * kRows, n = std::min(end * kRows, m_.vocab_size) - first;
      for (int k = 0; k < n_asked(); ++k) use(k, scores + k * kStride, first, n);
    });
  }

  void score() {
    const Packed& w = m_.head.factors.back();
    each_part(w, own_.quantized.inputs(w), [&](int k, float* scores, int first, int n) {
      finish(k, scores, first, n);
      deliver(k, scores, first, n);
    });
  }

  // The first stage: the highest score of each tile.
  void scan() {
    each_part(m_.coarse, own_.coarse.inputs(m_.coarse),
              [&](int k, float* scores, int first, int n) {
                finish(k, scores, first, n);
                row(k).choice->by->adjust(scores, first, n);
                for (int i = 0; i < n; i += kRows) {
                  Best best;
                  best.look<Simd>(scores + i, std::min(kRows, n - i), 0);
                  tops(k)[(first + i) / kRows] =
                      best.is_nan ? std::numeric_limits<float>::quiet_NaN() : best.top;
                }
              });
  }

  // The second: the tiles that were picked for row k, by the head itself.
  void rescore(int k) {
    const Packed& w = m_.head.factors.back();
    const std::vector<int>& picked = w_.picked[k];
    const Chooser& by = *row(k).choice->by;
    const auto one = [&](int i) {
      float scores[kRows];
      multiply(w.part(picked[i], 1), own_.quantized.inputs(w).from(k), 1, scores, kRows, {0, 1});
      const int first = picked[i] * kRows, n = std::min(kRows, m_.vocab_size - first);
      finish(k, scores, first, n);
      by.adjust(scores, first, n);
      space_.best[k].template look<Simd>(scores, n, first);
      if (by.is_greedy()) return;
      std::fill(scores + n, scores + kRows, -std::numeric_limits<float>::infinity());
      std::copy(scores, scores + kRows, drawn(k) + i * kRows);
      for (int j = 0; j < kRows; ++j) drawn_ids(k)[i * kRows + j] = first + j;
    };
    const int n_picked = static_cast<int>(picked.size());
    pool_.for_each_chunk(n_picked, kPickedAtOnce, thread_, [&](int begin, int end) {
      for (int i = begin; i < end; ++i) one(i);
    });
  }

  // Add what an adapter and a bias add to the products of row k with outputs `first` and up.
  void finish(int k, float* scores, int first, int n) {
    if (const LowRank* by = added(row(k).adapter, m_.head.number))
      by->add<Simd>(low(k), scores, first, first + n);
    if (m_.head.bias != nullptr)
      for (int i = 0; i < n; ++i) scores[i] += m_.head.bias[first + i];
    if (m_.logit_cap > 0)
      for (int i = 0; i < n; ++i)
        scores[i] = std::tanh(scores[i] / m_.logit_cap) * m_.logit_cap;
  }

  void deliver(int k, float* scores, int first, int n) {
    if (row(k).logits != nullptr)
      std::memcpy(row(k).logits + first, scores, sizeof(float) * n);
    if (row(k).choice == nullptr) return;
    const Chooser& by = *row(k).choice->by;
    by.adjust(scores, first, n);
    space_.best[k].template look<Simd>(scores, n, first);
    if (!by.is_greedy()) std::memcpy(drawn(k) + first, scores, sizeof(float) * n);
  }

  void choose(int k) {
    Choice* choice = row(k).choice;
    if (choice == nullptr) return;
    Best best;
    // Of threads that this step does not have, what an earlier one found is still there.
    for (int i = 0; i < pool_.size(); ++i) best.merge(w_.heads[i].best[k]);
    if (choice->settle(best)) return;
    const int32_t* ids = w_.two_stage ? drawn_ids(k) : nullptr;
    const int n = w_.two_stage ? static_cast<int>(w_.picked[k].size()) * kRows : m_.vocab_size;
    choice->token = choice->by->draw(drawn(k), ids, n, best.top, choice->random, space_.space);
  }

  static constexpr int kPickedAtOnce = 16;
  static constexpr int kStride = kHeadTiles * kRows;
  const Model& m_;
  Workspace& w_;
  Pool& pool_;
  const std::vector<Row>& rows_;
  const int thread_;
  const bool alone_;
  Workspace::Own& own_;
  Workspace::HeadSpace& space_;
};

}  // namespace onhand
