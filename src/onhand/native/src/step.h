// One step of a decoder: some tokens in, the scores of what follows out; over any `Simd`.
//
// Rows never meet but in the key/value memory, and every sum runs in an order that depends on
// nothing but its own row: the answer to a token is the same bits whatever is computed beside it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "attention.h"
#include "head.h"
#include "model.h"
#include "norms.h"
#include "pack.h"
#include "products.h"
#include "quantize.h"
#include "vectors.h"

namespace onhand {

// One thread's part of a step. Threads meet between the parts of a layer; what a few rows need
// before a product each thread computes for itself, which is less than waiting for another.
template <class Simd>
class Step {
 public:
  Step(const Model& model, Workspace& work, Pool& pool, const std::vector<Row>& rows, int thread)
      : m_(model), w_(work), pool_(pool), rows_(rows), n_(static_cast<int>(rows.size())),
        thread_(thread), alone_(n_ <= kAloneRows),
        bf16_(Simd::kTiles && model.bf16_prefill && n_ >= kBf16Rows),
        own_(work.own[alone_ ? thread : 0]),
        mine_(alone_ ? Range{0, n_} : share(n_)), attention_(model, work, rows, thread, bf16_),
        head_(model, work, pool, rows, thread) {}

  void run() {
    for (int r = mine_.begin; r < mine_.end; ++r) embed(r);
    for (size_t i = 0; i < m_.layers.size(); ++i) {
      const Layer& layer = m_.layers[i];
      attend(layer, static_cast<int>(i));
      transform(layer);
    }
    head_.run();
  }

 private:
  Range share(int n) const { return pool_.share(n, thread_); }
  // Wait for what the others prepared, if they did.
  void meet_unless_alone() {
    if (!alone_) pool_.meet();
  }

  void attend(const Layer& layer, int i) {
    for (int r = mine_.begin; r < mine_.end; ++r) {
      norm(layer.attention_norm, stream(r), normed(r));
      quantize(normed(r), m_.width, layer.qkv, r);
    }
    meet_unless_alone();
    linear(layer.qkv, own_.quantized, w_.qkv.data(), n_);
    pool_.meet();
    if (alone_ && layer.n_kv_heads >= pool_.size()) {
      // Heads do not meet, so a thread goes from a head's keys to its answer without waiting.
      const Range heads = share(layer.n_kv_heads);
      for (int r = 0; r < n_; ++r) remember(layer, i, r, heads);
      attention_.attend(layer, i, heads.begin, heads.end);
    } else {
      const Range rows = share(n_);
      for (int r = rows.begin; r < rows.end; ++r) remember(layer, i, r, {0, layer.n_kv_heads});
      pool_.meet();
      pool_.for_each_chunk(attention_.n_items(layer), 1, thread_, [&](int item, int) {
        attention_.attend(layer, i, item);
      });
    }
    pool_.meet();
    for (int r = mine_.begin; r < mine_.end; ++r)
      quantize(attended(layer, r), layer.query_width(), layer.out, r);
    meet_unless_alone();
    linear(layer.out, own_.quantized, w_.product.data(), n_);
    pool_.meet();
    for (int r = mine_.begin; r < mine_.end; ++r)
      add(layer.out, attended(layer, r), layer.attention_post, r);
  }

  void transform(const Layer& layer) {
    for (int r = mine_.begin; r < mine_.end; ++r) {
      norm(layer.mlp_norm, stream(r), normed(r));
      quantize(normed(r), m_.width, layer.inner, r);
    }
    meet_unless_alone();
    widen(layer);
    pool_.meet();
    linear(layer.down, w_.activated_codes, w_.product.data(), n_);
    pool_.meet();
    for (int r = mine_.begin; r < mine_.end; ++r)
      add(layer.down, activated(layer, r), layer.mlp_post, r);
  }

  // From a layer's normed rows to the rounded inputs of its last product, in chunks of groups of
  // those: gates and what they gate together, so that no thread waits in between.
  void widen(const Layer& layer) {
    const int n_groups = layer.down.factors.front().n_groups;
    const bool multiplies = layer.widens_in_parts(m_.gated);
    if (!multiplies) {
      linear(layer.inner, own_.quantized, w_.inner.data(), n_);
      pool_.meet();
    }
    // The lower factor of an adapter is computed for each chunk: a thread then takes its share.
    const bool adapted = std::any_of(rows_.begin(), rows_.end(), [&](const Row& one) {
      return added(one.adapter, layer.inner.number) != nullptr;
    });
    const int size = adapted ? (n_groups + pool_.size() - 1) / pool_.size() : chunk(n_groups);
    pool_.for_each_chunk(n_groups, size, thread_, [&](int begin, int end) {
      widen(layer, {begin, end}, multiplies);
    });
  }

  void widen(const Layer& layer, Range groups, bool multiplies) {
    const int most = kWideColumns / layer.down.factors.front().format.group;
    for (int g = groups.begin; g < groups.end; g += most)
      widen_some(layer, {g, std::min(g + most, groups.end)}, multiplies);
  }

  // So few groups that what lies between the products stays in the second cache, whatever the
  // number of rows.
  void widen_some(const Layer& layer, Range groups, bool multiplies) {
    const Packed& down = layer.down.factors.front();
    const Packed& last = layer.inner.factors.back();
    const int width = layer.mlp_width, begin = groups.begin * down.format.group;
    const int n = std::min(groups.end * down.format.group, width) - begin;
    const int n_tiles = (n + kRows - 1) / kRows;
    float* space = w_.wide[thread_].data();
    float* made = space + size_t(kMostRows) * 2 * kWideColumns;
    float* gates = multiplies ? space : w_.inner.data() + begin;
    const int above = multiplies ? kWideColumns : width;  // from a gate to what it gates
    const size_t apart = multiplies ? 2 * kWideColumns : stride(last);
    if (multiplies) {
      multiply(last.from(begin / kRows), own_.quantized, gates, apart, n_, {0, n_tiles});
      if (m_.gated)
        multiply(last.from((width + begin) / kRows), own_.quantized, gates + above, apart, n_,
                 {0, n_tiles});
    }
    for (int r = 0; r < n_; ++r) {
      float* gate = gates + r * apart;
      const Addition added = addition(layer.inner, r, normed(r));
      finish(layer.inner, added, gate, begin, n);
      if (m_.gated) finish(layer.inner, added, gate + above, width + begin, n);
      // An adapter of the last product takes the row as it is, and whole.
      float* to = rows_[r].adapter == nullptr ? made : activated(layer, r) + begin;
      activate(gate, m_.gated ? gate + above : nullptr, to, n);
      round(to, n, down, w_.activated_codes, r, groups);
    }
  }

  // Finish a row's queries of some key heads, and put keys and values into the memory.
  void remember(const Layer& layer, int i, int r, Range heads) {
    float* qkv = row(w_.qkv, layer.qkv, r);
    const Addition added = addition(layer.qkv, r, normed(r));
    const int shared = layer.n_heads / layer.n_kv_heads;
    const auto part = [&](int first_head, int begin, int end) {
      const int first = (first_head + begin) * layer.head_dim;
      finish(layer.qkv, added, qkv + first, first, (end - begin) * layer.head_dim);
    };
    part(0, heads.begin * shared, heads.end * shared);
    part(layer.n_heads, heads.begin, heads.end);
    part(layer.n_heads + layer.n_kv_heads, heads.begin, heads.end);
    attention_.remember(layer, i, r, heads.begin, heads.end);
  }

  float* stream(int r) { return own_.stream.data() + size_t(r) * m_.width; }
  float* normed(int r) { return own_.normed.data() + size_t(r) * m_.width; }
  float* attended(const Layer& layer, int r) {
    return w_.attended.data() + size_t(r) * layer.query_width();
  }
  float* activated(const Layer& layer, int r) {
    return w_.activated.data() + size_t(r) * layer.mlp_width;
  }
  static int stride(const Packed& w) { return w.n_tiles * kRows; }
  static float* row(std::vector<float>& all, const Linear& by, int r) {
    return all.data() + size_t(r) * stride(by.factors.back());
  }

  void embed(int r) {
    float* x = stream(r);
    unpack_row(m_.embed, rows_[r].token, x);
    for (int i = 0; i < m_.width; ++i) x[i] *= m_.embed_scale;
    if (m_.positions != nullptr) {
      const float* at = m_.positions + size_t(rows_[r].position) * m_.width;
      for (int i = 0; i < m_.width; ++i) x[i] += at[i];
    }
  }

  void norm(const Norm& by, const float* x, float* to) const {
    onhand::norm<Simd>(by, m_.epsilon, x, to, m_.width);
  }

  void quantize(const float* x, int n, const Linear& by, int r) {
    quantize(x, n, by.factors.front(), r);
  }
  void quantize(const float* x, int n, const Packed& w, int r) {
    round(x, n, w, own_.quantized, r, {0, w.n_groups});
  }
  // Some groups of row r, given as n floats, as inputs of a product.
  void round(const float* x, int n, const Packed& w, Quantized& to, int r, Range groups) {
    if constexpr (Simd::kTiles)
      if (bf16_)
        return round_to_bf16<Simd>(x, n, w, to.bf16_inputs(w), r, groups.begin * w.format.group);
    onhand::quantize<Simd>(x, n, w, to.inputs(w).from(r).past(groups.begin), 0,
                           groups.end - groups.begin);
  }

  // Some tiles of a matrix times n rows: out[r * stride + i].
  void multiply(const Packed& w, Quantized& x, float* out, size_t stride, int n, Range tiles) {
    uint8_t* scratch = w_.scratch[thread_].data()->at;
    if constexpr (Simd::kTiles)
      if (bf16_)
        return product<Simd>(w, x.bf16_inputs(w), n, out, stride, tiles.begin, tiles.end, scratch);
    product<Simd>(w, x.inputs(w), n, out, stride, tiles.begin, tiles.end, scratch);
  }

  // A matrix times n rows; threads meet between its factors.
  void linear(const Linear& by, Quantized& x, float* out, int n) {
    const Packed& first = by.factors.front();
    if (by.factors.size() == 1) return multiply_all(first, x, out, n);
    const Packed& second = by.factors[1];
    float* between = w_.between.data();
    multiply_all(first, x, between, n);
    pool_.meet();
    const Range rows = alone_ ? Range{0, n} : share(n);
    for (int r = rows.begin; r < rows.end; ++r)
      quantize(between + size_t(r) * stride(first), first.n_rows, second, r);
    meet_unless_alone();
    multiply_all(second, own_.quantized, out, n);
  }

  // All tiles of a matrix times n rows, in chunks that threads take as they come to them.
  void multiply_all(const Packed& w, Quantized& x, float* out, int n) {
    const int size = bf16_ ? bf16_chunk(w.n_tiles) : chunk(w.n_tiles);
    pool_.for_each_chunk(w.n_tiles, size, thread_, [&](int begin, int end) {
      multiply(w, x, out, stride(w), n, {begin, end});
    });
  }

  // Of n parts, how many to take at once: a sixteenth of a thread's share, so that no thread waits
  // long for the last; in fours, as products unpack tiles.
  int chunk(int n) const {
    const int t = pool_.size();
    return std::max(n / (16 * t) / 4 * 4, std::min(4, (n + t - 1) / t));
  }

  // As many as rows in bf16 pass over together, or less for equal shares; in pairs.
  int bf16_chunk(int n) const {
    const int n_each = (n + kBf16Tiles * pool_.size() - 1) / (kBf16Tiles * pool_.size());
    const int size = (n + n_each * pool_.size() - 1) / (n_each * pool_.size());
    return (size + 1) / 2 * 2;
  }

  // What a row's adapter adds to a product: its factors, and the first times what is multiplied.
  struct Addition { const LowRank* by; const float* low; };
  Addition addition(const Linear& to, int r, const float* x) {
    const LowRank* by = added(rows_[r].adapter, to.number);
    if (by != nullptr) by->lower<Simd>(x, w_.low[thread_].data());
    return {by, w_.low[thread_].data()};
  }

  // Add to n outputs of a product, from `begin` on, what an adapter and a bias add.
  void finish(const Linear& by, Addition added, float* outputs, int begin, int n) {
    if (added.by != nullptr) added.by->template add<Simd>(added.low, outputs, begin, begin + n);
    if (by.bias != nullptr)
      for (int i = 0; i < n; ++i) outputs[i] += by.bias[begin + i];
  }

  // Add a product to the stream; `from` is what was multiplied.
  void add(const Linear& by, const float* from, const Norm& post, int r) {
    float* part = normed(r);  // the product itself is there for all threads
    std::copy_n(row(w_.product, by, r), m_.width, part);
    finish(by, addition(by, r, from), part, 0, m_.width);
    if (post.weight != nullptr) norm(post, part, part);
    float* x = stream(r);
    for (int i = 0; i < m_.width; ++i) x[i] += part[i];
  }

  // What n gates let through of `inner`, or, without it, of themselves.
  void activate(const float* gates, const float* inner, float* to, int n) const {
    switch (m_.activation) {
      case Activation::silu:
        for (int i = 0; i < n; ++i) to[i] = gates[i] / (1 + fast_exp(-gates[i]));
        break;
      case Activation::gelu:
        for (int i = 0; i < n; ++i)
          to[i] = 0.5f * gates[i] * (1 + std::erf(gates[i] * 0.70710678f));
        break;
      case Activation::gelu_tanh:
        for (int i = 0; i < n; ++i) {
          const float x = gates[i];
          to[i] = 0.5f * x * (1 + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
        }
    }
    if (inner != nullptr)
      for (int i = 0; i < n; ++i) to[i] *= inner[i];
  }

  const Model& m_;
  Workspace& w_;
  Pool& pool_;
  const std::vector<Row>& rows_;
  const int n_, thread_;
  const bool alone_;
  const bool bf16_;  // products take their inputs so
  Workspace::Own& own_;
  const Range mine_;
  Attention<Simd> attention_;
  Head<Simd> head_;
};

template <class Simd>
inline void step(const Model& model, Workspace& work, Pool& pool, const std::vector<Row>& rows) {
  work.expect(model, rows);
  const auto job = [&](int thread) { Step<Simd>(model, work, pool, rows, thread).run(); };
  pool.run(std::ref(job));  // by reference: its copy would be on the heap
}

}  // namespace onhand
