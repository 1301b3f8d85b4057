// One step of a decoder: some tokens in, the scores of what follows out; over any `Simd`.
//
// Rows never meet but in the key/value memory, and every sum runs in an order that depends on
// nothing but its own row: the answer to a token is the same bits whatever is computed beside it.
#pragma once

#include <cmath>
#include <cstring>

#include "attention.h"
#include "model.h"
#include "pack.h"
#include "products.h"
#include "vectors.h"

namespace onhand {

template <class Simd>
class Step {
 public:
  Step(const Model& model, Workspace& work, Pool& pool, const std::vector<Row>& rows)
      : m_(model), w_(work), pool_(pool), rows_(rows), n_(static_cast<int>(rows.size())),
        attention_(model, work, rows) {}

  void run() {
    pool_.run([this](int thread) { Step<Simd>::work(thread); });
  }

 private:
  struct Range { int begin, end; };
  Range share(int n, int thread) const {
    const int t = pool_.size();
    return {static_cast<int>(static_cast<int64_t>(n) * thread / t),
            static_cast<int>(static_cast<int64_t>(n) * (thread + 1) / t)};
  }

  void work(int thread) {
    const Range mine = share(n_, thread);
    for (int r = mine.begin; r < mine.end; ++r) embed(r);
    for (size_t i = 0; i < m_.layers.size(); ++i) {
      const Layer& layer = m_.layers[i];
      for (int r = mine.begin; r < mine.end; ++r) {
        norm(layer.attention_norm, stream(r), normed(r));
        quantize(normed(r), m_.width, layer.qkv, r);
      }
      linear(layer.qkv, w_.qkv.data(), n_, thread);
      for (int r = mine.begin; r < mine.end; ++r) {
        finish(layer.qkv, normed(r), row(w_.qkv, layer.qkv, r), thread);
        attention_.remember(layer, static_cast<int>(i), r);
      }
      pool_.meet();
      const Range items = share(n_ * layer.n_kv_heads, thread);
      for (int k = items.begin; k < items.end; ++k)
        attention_.attend(layer, static_cast<int>(i), k / layer.n_kv_heads, k % layer.n_kv_heads,
                          thread);
      pool_.meet();
      for (int r = mine.begin; r < mine.end; ++r)
        quantize(attended(layer, r), layer.query_width(), layer.out, r);
      linear(layer.out, w_.product.data(), n_, thread);
      for (int r = mine.begin; r < mine.end; ++r) {
        add(layer.out, attended(layer, r), layer.attention_post, r, thread);
        norm(layer.mlp_norm, stream(r), normed(r));
        quantize(normed(r), m_.width, layer.inner, r);
      }
      linear(layer.inner, w_.inner.data(), n_, thread);
      for (int r = mine.begin; r < mine.end; ++r) {
        finish(layer.inner, normed(r), row(w_.inner, layer.inner, r), thread);
        activate(layer, r);
        quantize(activated(layer, r), layer.mlp_width, layer.down, r);
      }
      linear(layer.down, w_.product.data(), n_, thread);
      for (int r = mine.begin; r < mine.end; ++r)
        add(layer.down, activated(layer, r), layer.mlp_post, r, thread);
    }
    score(thread);
  }

  float* stream(int r) { return w_.stream.data() + size_t(r) * m_.width; }
  float* normed(int r) { return w_.normed.data() + size_t(r) * m_.width; }
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
    const int n = m_.width;
    if (by.bias == nullptr) return rms_norm<Simd>(by.weight, m_.epsilon, x, to, n);
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += x[i];
    const float mean = static_cast<float>(sum / n);
    for (int i = 0; i < n; ++i) to[i] = x[i] - mean;
    rms_norm<Simd>(by.weight, m_.epsilon, to, to, n);
    for (int i = 0; i < n; ++i) to[i] += by.bias[i];
  }

  // Where row r of the inputs of a matrix lies.
  Inputs inputs(const Packed& w, int r) {
    const Inputs all{w.n_groups, w.format.group, w_.quantized.codes.data(),
                     w_.quantized.scales.data(), w_.quantized.sums.data()};
    return all.from(r);
  }

  void quantize(const float* x, int n, const Linear& by, int r) {
    quantize(x, n, by.factors.front(), r);
  }

  void quantize(const float* x, int n, const Packed& w, int r) {
    const Inputs to = inputs(w, r);
    const int group = w.format.group;
    float padded[128];
    for (int g = 0; g < w.n_groups; ++g) {
      const float* from = x + g * group;
      if ((g + 1) * group > n) {
        const int there = n - g * group;
        for (int i = 0; i < group; ++i) padded[i] = i < there ? from[i] : 0.0f;
        from = padded;
      }
      float most[kRows] = {};
      for (int i = 0; i < group; i += kRows)
        for (int j = 0; j < kRows; ++j) {
          const float size = std::fabs(from[i + j]);
          most[j] = size > most[j] ? size : most[j];
        }
      float top = 0;
      for (float one : most) top = one > top ? one : top;
      const float inverse = top > 0 ? 127.0f / top : 0.0f;
      int8_t* codes = to.codes + g * group;
      int32_t sum = 0;
      for (int i = 0; i < group; ++i) {
        const int32_t code = static_cast<int32_t>(std::nearbyint(from[i] * inverse));
        codes[i] = static_cast<int8_t>(code);
        sum += code;
      }
      to.scales[g] = top / 127.0f;
      to.sums[g] = sum;
    }
  }

  // Rows were quantised; afterwards out[r * stride + i] is there for all threads.
  void linear(const Linear& by, float* out, int n, int thread) {
    pool_.meet();
    for (size_t f = 0; f < by.factors.size(); ++f) {
      const Packed& w = by.factors[f];
      const bool last = f + 1 == by.factors.size();
      float* to = last ? out : w_.between.data();
      const Range tiles = share(w.n_tiles, thread);
      product<Simd>(w, inputs(w, 0), n, to, stride(w), tiles.begin, tiles.end,
                    w_.scratch[thread].data()->at);
      pool_.meet();
      if (last) break;
      const Range mine = share(n, thread);
      for (int r = mine.begin; r < mine.end; ++r)
        quantize(to + size_t(r) * stride(w), w.n_rows, by.factors[f + 1], r);
      pool_.meet();
    }
  }

  // Add to a row's product what an adapter and a bias add; `x` is what was multiplied.
  void finish(const Linear& by, const float* x, float* product, int thread) {
    const LowRank& added = by.added;
    if (added.rank > 0) {
      std::vector<float>& between = w_.shares[thread];
      if (between.size() < size_t(added.rank)) between.resize(added.rank);
      for (int j = 0; j < added.rank; ++j)
        between[j] = dot<Simd>(added.first + size_t(j) * by.n_inputs(), x, by.n_inputs());
      for (int i = 0; i < by.n_outputs(); ++i)
        product[i] += dot<Simd>(added.second + size_t(i) * added.rank, between.data(), added.rank);
    }
    if (by.bias != nullptr)
      for (int i = 0; i < by.n_outputs(); ++i) product[i] += by.bias[i];
  }

  void add(const Linear& by, const float* from, const Norm& post, int r, int thread) {
    float* part = row(w_.product, by, r);
    finish(by, from, part, thread);
    if (post.weight != nullptr) norm(post, part, part);
    float* x = stream(r);
    for (int i = 0; i < m_.width; ++i) x[i] += part[i];
  }

  void activate(const Layer& layer, int r) {
    const float* inner = row(w_.inner, layer.inner, r);
    const int n = layer.mlp_width;
    float* to = activated(layer, r);
    switch (m_.activation) {
      case Activation::silu:
        for (int i = 0; i < n; ++i) to[i] = inner[i] / (1 + fast_exp(-inner[i]));
        break;
      case Activation::gelu:
        for (int i = 0; i < n; ++i)
          to[i] = 0.5f * inner[i] * (1 + std::erf(inner[i] * 0.70710678f));
        break;
      case Activation::gelu_tanh:
        for (int i = 0; i < n; ++i) {
          const float x = inner[i];
          to[i] = 0.5f * x * (1 + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
        }
    }
    if (m_.gated)
      for (int i = 0; i < n; ++i) to[i] *= inner[n + i];
  }

  void score(int thread) {
    // Only rows whose scores somebody asks for go through the head.
    std::vector<int> asked;
    for (int r = 0; r < n_; ++r)
      if (rows_[r].logits != nullptr) asked.push_back(r);
    const int n_asked = static_cast<int>(asked.size());
    pool_.meet();
    const Range mine = share(n_asked, thread);
    for (int k = mine.begin; k < mine.end; ++k) {
      norm(m_.final_norm, stream(asked[k]), normed(asked[k]));
      quantize(normed(asked[k]), m_.width, m_.head, k);
    }
    if (n_asked > 0) linear(m_.head, w_.scores.data(), n_asked, thread);
    for (int k = mine.begin; k < mine.end; ++k) {
      float* from = row(w_.scores, m_.head, k);
      finish(m_.head, normed(asked[k]), from, thread);
      float* to = rows_[asked[k]].logits;
      std::memcpy(to, from, sizeof(float) * m_.vocab_size);
      if (m_.logit_cap > 0)
        for (int i = 0; i < m_.vocab_size; ++i)
          to[i] = std::tanh(to[i] / m_.logit_cap) * m_.logit_cap;
    }
  }

  const Model& m_;
  Workspace& w_;
  Pool& pool_;
  const std::vector<Row>& rows_;
  const int n_;
  Attention<Simd> attention_;
};

template <class Simd>
inline void step(const Model& model, Workspace& work, Pool& pool, const std::vector<Row>& rows) {
  Step<Simd>(model, work, pool, rows).run();
}

}  // namespace onhand
