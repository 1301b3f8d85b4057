// The head of a step: from a row of the stream to its scores, or to the token that they choose.
//
// Scores of a few tiles at a time stay in the caches: whoever wants them all gets a copy, the
// highest is found on the way, and where nothing else is wanted no more is kept.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

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
      for (int j = 0; j < m_.head.added.rank; ++j)
        low(k)[j] = dot<Simd>(m_.head.added.first + size_t(j) * m_.width, normed(k), m_.width);
    }
    if (!alone_) pool_.meet();
    for (size_t f = 0; f + 1 < m_.head.factors.size(); ++f) factor(f, mine);
    for (Best& one : space_.best) one = Best{};
    score();
    pool_.meet();
    const Range rows = share(n);
    for (int k = rows.begin; k < rows.end; ++k) choose(k);
  }

 private:
  struct Range { int begin, end; };
  Range share(int n) const {
    const int64_t t = pool_.size();
    return {static_cast<int>(n * int64_t{thread_} / t),
            static_cast<int>(n * int64_t{thread_ + 1} / t)};
  }
  int n_asked() const { return static_cast<int>(w_.asked.size()); }
  const Row& row(int k) const { return rows_[w_.asked[k]]; }
  const float* stream(int k) const { return own_.stream.data() + size_t(w_.asked[k]) * m_.width; }
  float* normed(int k) { return own_.normed.data() + size_t(w_.asked[k]) * m_.width; }
  float* drawn(int k) { return w_.drawn.data() + size_t(k) * m_.vocab_size; }
  float* low(int k) {
    return w_.heads[alone_ ? thread_ : 0].low.data() + size_t(k) * m_.head.added.rank;
  }

  // Round n floats to row k of the inputs of a factor.
  void round(const float* x, int n, size_t f, int k) {
    const Packed& w = m_.head.factors[f];
    quantize(x, n, w, own_.quantized.inputs(w).from(k), 0, w.n_groups);
  }

  void multiply(const Packed& w, int n, float* out, size_t stride, Range tiles) {
    product<Simd>(w, own_.quantized.inputs(w), n, out, stride, tiles.begin, tiles.end,
                  w_.scratch[thread_].data()->at);
  }

  // A factor that is not the last.
  void factor(size_t f, Range mine) {
    const Packed& w = m_.head.factors[f];
    const size_t stride = size_t(w.n_tiles) * kRows;
    multiply(w, n_asked(), w_.between.data(), stride, share(w.n_tiles));
    pool_.meet();
    for (int k = mine.begin; k < mine.end; ++k)
      round(w_.between.data() + k * stride, w.n_rows, f + 1, k);
    if (!alone_) pool_.meet();
  }

  // This thread's share of the last factor.
  void score() {
    const Packed& w = m_.head.factors.back();
    const Range tiles = share(w.n_tiles);
    float* scores = space_.scores.data();
    for (int tile = tiles.begin; tile < tiles.end; tile += kHeadTiles) {
      const int n_tiles = std::min(kHeadTiles, tiles.end - tile);
      multiply(w.part(tile, n_tiles), n_asked(), scores, kStride, {0, n_tiles});
      const int first = tile * kRows, n = std::min(n_tiles * kRows, m_.vocab_size - first);
      for (int k = 0; k < n_asked(); ++k) {
        finish(k, scores + k * kStride, first, n);
        deliver(k, scores + k * kStride, first, n);
      }
    }
  }

  // Add what an adapter and a bias add to the products of row k with outputs `first` and up.
  void finish(int k, float* scores, int first, int n) {
    const LowRank& by = m_.head.added;
    if (by.rank > 0)
      for (int i = 0; i < n; ++i)
        scores[i] += dot<Simd>(by.second + size_t(first + i) * by.rank, low(k), by.rank);
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
    for (const auto& one : w_.heads) best.merge(one.best[k]);
    if (!choice->settle(best))
      choice->token = choice->by->draw(drawn(k), nullptr, m_.vocab_size, best.top, choice->random,
                                       space_.space);
  }

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
