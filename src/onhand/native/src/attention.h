// Attention of a step's rows: queries, keys and values in, what they attend to out; over any `Simd`.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "half.h"
#include "model.h"
#include "vectors.h"

namespace onhand {

template <class Simd>
class Attention {
 public:
  Attention(const Model& model, Workspace& work, const std::vector<Row>& rows)
      : m_(model), w_(work), rows_(rows) {}

  // Of some key heads: finish queries in their place, and keys and values in the memory.
  void remember(const Layer& layer, int i, int r, int begin, int end) {
    float* qkv = queries(layer, r);
    const int dim = layer.head_dim, position = rows_[r].position;
    const int page = position / kPage, slot = position % kPage;
    const int wide = (dim + kLanes - 1) / kLanes * kLanes;
    const int shared = layer.n_heads / layer.n_kv_heads;
    for (int h = begin * shared; h < end * shared; ++h) {
      float* head = qkv + h * dim;
      place(layer, layer.query_norm, position, head);
      for (int d = 0; d < dim; ++d) head[d] *= layer.scale;
    }
    for (int h = begin; h < end; ++h) {
      float* key = qkv + (layer.n_heads + h) * dim;
      place(layer, layer.key_norm, position, key);
      uint16_t* keys = rows_[r].memory->keys(i, h, page) + size_t(slot / kLanes) * wide * kLanes +
                       slot % kLanes;
      for (int d = 0; d < dim; ++d) keys[d * kLanes] = to_half(key[d]);
      const float* value = key + layer.n_kv_heads * dim;
      uint16_t* values = rows_[r].memory->values(i, h, page) + size_t(slot) * wide;
      for (int d = 0; d < dim; ++d) values[d] = to_half(value[d]);
    }
  }

  void attend(const Layer& layer, int i, int r, int kv_head, int thread) {
    const int shared = layer.n_heads / layer.n_kv_heads;
    for (int h = 0; h < shared;) {
      if (shared - h >= 4) { attend<4>(layer, i, r, kv_head, h, thread); h += 4; }
      else if (shared - h >= 2) { attend<2>(layer, i, r, kv_head, h, thread); h += 2; }
      else { attend<1>(layer, i, r, kv_head, h, thread); h += 1; }
    }
  }

 private:
  static const uint8_t* raw(const uint16_t* p) { return reinterpret_cast<const uint8_t*>(p); }

  // Row r's queries, and its keys and values behind them.
  float* queries(const Layer& layer, int r) {
    return w_.qkv.data() + size_t(r) * layer.qkv.factors.back().n_tiles * kRows;
  }

  void place(const Layer& layer, const float* weight, int position, float* head) const {
    const int dim = layer.head_dim;
    if (weight != nullptr) rms_norm<Simd>(weight, m_.epsilon, head, head, dim);
    if (layer.rotary.half > 0) turn(layer.rotary, position, head);
  }

  static void turn(const Rotary& by, int position, float* head) {
    const float* cosines = by.cosines + size_t(position) * by.half;
    const float* sines = by.sines + size_t(position) * by.half;
    for (int i = 0; i < by.half; ++i) {
      const float low = head[i], high = head[i + by.half];
      head[i] = low * cosines[i] - high * sines[i];
      head[i + by.half] = high * cosines[i] + low * sines[i];
    }
  }

  // `Heads` query heads of one row, from head `first` of those that share a key head.
  template <int Heads>
  void attend(const Layer& layer, int i, int r, int kv_head, int first, int thread) {
    const Memory& memory = *rows_[r].memory;
    const int dim = layer.head_dim, wide = (dim + kLanes - 1) / kLanes * kLanes;
    const int end = rows_[r].position + 1;
    const int begin = layer.window > 0 && end > layer.window ? end - layer.window : 0;
    const int shared = layer.n_heads / layer.n_kv_heads;
    const int begin_block = begin / kLanes, end_block = (end + kLanes - 1) / kLanes;
    const int n = (end_block - begin_block) * kLanes;
    std::vector<float>& shares = w_.shares[thread];
    if (shares.size() < size_t(Heads) * n) shares.resize(size_t(Heads) * n * 2);
    const float* query = queries(layer, r) + (kv_head * shared + first) * dim;
    for (int b = begin_block; b < end_block; ++b) {
      const uint16_t* keys = memory.keys(i, kv_head, b * kLanes / kPage) +
                             size_t(b % (kPage / kLanes)) * wide * kLanes;
      typename Simd::Floats sum[Heads];
      for (auto& one : sum) one = Simd::zero();
      for (int d = 0; d < dim; ++d) {
        const auto key = Simd::halves(raw(keys + d * kLanes));
        for (int h = 0; h < Heads; ++h)
          sum[h] = Simd::fused(key, Simd::all(query[h * dim + d]), sum[h]);
      }
      for (int h = 0; h < Heads; ++h)
        Simd::store(shares.data() + size_t(h) * n + (b - begin_block) * kLanes, sum[h]);
    }
    float inverse[Heads];
    for (int h = 0; h < Heads; ++h)
      inverse[h] = soften(shares.data() + size_t(h) * n, n, begin - begin_block * kLanes,
                          end - begin_block * kLanes);
    float* out = w_.attended.data() + size_t(r) * layer.query_width() + (kv_head * shared + first) * dim;
    for (int d = 0; d < wide; d += kLanes) {
      typename Simd::Floats sum[Heads];
      for (auto& one : sum) one = Simd::zero();
      for (int p = begin; p < end; ++p) {
        const uint16_t* values = memory.values(i, kv_head, p / kPage) + size_t(p % kPage) * wide + d;
        const auto value = Simd::halves(raw(values));
        const float* share = shares.data() + (p - begin_block * kLanes);
        for (int h = 0; h < Heads; ++h)
          sum[h] = Simd::fused(value, Simd::all(share[size_t(h) * n]), sum[h]);
      }
      for (int h = 0; h < Heads; ++h) {
        float part[kLanes];
        Simd::store(part, Simd::times(sum[h], inverse[h]));
        std::memcpy(out + h * dim + d, part, sizeof(float) * std::min(kLanes, dim - d));
      }
    }
  }

  // Turn scores into exp(score - most), zero outside begin .. end; return 1 / their sum.
  float soften(float* scores, int n, int begin, int end) const {
    if (m_.attention_cap > 0)
      for (int p = begin; p < end; ++p)
        scores[p] = std::tanh(scores[p] / m_.attention_cap) * m_.attention_cap;
    float most = scores[begin];
    for (int p = begin + 1; p < end; ++p) most = scores[p] > most ? scores[p] : most;
    for (int p = 0; p < n; ++p)
      scores[p] = p >= begin && p < end ? fast_exp(scores[p] - most) : 0.0f;
    float lanes[kLanes] = {}, sum = 0;
    for (int p = 0; p < n; p += kLanes)
      for (int j = 0; j < kLanes; ++j) lanes[j] += scores[p + j];
    for (float one : lanes) sum += one;
    return 1 / sum;
  }

  const Model& m_;
  Workspace& w_;
  const std::vector<Row>& rows_;
};

}  // namespace onhand
