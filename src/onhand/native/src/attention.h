// Attention of a step's rows: queries, keys and values in, what they attend to out; any `Simd`.
//
// Consecutive rows of a conversation pass over its pages together. Still each row is computed as it
// would be alone: a score is one chain over a head's numbers; pages follow each other, and shares
// are kept to the largest score so far, as online softmax does (arXiv:1805.02867); the values' sum
// is a chain over positions, and the shares' sum is sixteen.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention_bf16.h"
#include "attention_pages.h"
#include "model.h"
#include "vectors.h"

namespace onhand {

template <class Simd>
class Attention {
 public:
  // `bf16`: in tile instructions, and in another order.
  Attention(const Model& model, Workspace& work, const std::vector<Row>& rows, int thread,
            bool bf16)
      : m_(model), w_(work), rows_(rows), bf16_(bf16), own_(work.attention[thread]) {
    const int n = static_cast<int>(rows.size()), most = bf16 ? kBf16TileRows : kTileRows;
    for (int r = 0; r < n; ++r) {
      const bool follows = n_tiles_ > 0 && tiles_[n_tiles_ - 1].n < most &&
                           rows[r].memory == rows[r - 1].memory &&
                           rows[r].position == rows[r - 1].position + 1;
      if (follows) ++tiles_[n_tiles_ - 1].n;
      else tiles_[n_tiles_++] = {r, 1};
    }
  }

  // Of some key heads: finish queries in their place, and keys and values in the memory.
  void remember(const Layer& layer, int i, int r, int begin, int end) {
    float* qkv = queries(layer, r);
    const int dim = layer.head_dim, wide = m_.pages.wide[i], position = rows_[r].position;
    const int page = position / kPage, slot = position % kPage;
    const int shared = layer.n_heads / layer.n_kv_heads;
    for (int h = begin * shared; h < end * shared; ++h) {
      float* head = qkv + h * dim;
      place(layer, layer.query_norm, rows_[r], head);
      for (int d = 0; d < dim; ++d) head[d] *= layer.scale;
    }
    for (int h = begin; h < end; ++h) {
      float* key = qkv + (layer.n_heads + h) * dim;
      place(layer, layer.key_norm, rows_[r], key);
      const float* value = key + layer.n_kv_heads * dim;
      const Memory& memory = *rows_[r].memory;
      uint8_t *keys = memory.keys(i, h, page), *values = memory.values(i, h, page);
      const int at = slot / kLanes * wide * kLanes + slot % kLanes;
      if (m_.pages.kept == Kept::fp16) {
        store(key, dim, reinterpret_cast<uint16_t*>(keys) + at, kLanes);
        store(value, dim, reinterpret_cast<uint16_t*>(values) + slot * wide, 1);
      } else {
        memory.scales(keys, i)[slot] =
            store(key, dim, reinterpret_cast<int8_t*>(keys) + at, kLanes);
        memory.scales(values, i)[slot] =
            store(value, dim, reinterpret_cast<int8_t*>(values) + slot * wide, 1);
      }
    }
  }

  // Answer all rows' queries of some key heads.
  void attend(const Layer& layer, int i, int begin, int end) {
    for (int k = 0; k < n_tiles_; ++k)
      for (int h = begin; h < end; ++h) answer(layer, i, tiles_[k], h);
  }

  // The same in parts that do not meet: some rows' queries of one key head.
  int n_items(const Layer& layer) const { return n_tiles_ * layer.n_kv_heads; }
  void attend(const Layer& layer, int i, int item) {
    answer(layer, i, tiles_[item / layer.n_kv_heads], item % layer.n_kv_heads);
  }

 private:
  using Floats = typename Simd::Floats;
  struct Tile { int first, n; };   // rows

  // Row r's queries, and its keys and values behind them.
  float* queries(const Layer& layer, int r) {
    return w_.qkv.data() + size_t(r) * layer.qkv.factors.back().n_tiles * kRows;
  }

  // Keep a head's numbers as fp16; what is beyond its range becomes its largest number.
  static void store(const float* head, int dim, uint16_t* to, int stride) {
    const auto most = Simd::all(65504.0f), least = Simd::all(-65504.0f);
    for (int d = 0; d < dim; d += kLanes) {
      float whole[kLanes] = {};
      const int n = std::min(kLanes, dim - d);
      std::copy(head + d, head + d + n, whole);
      uint16_t part[kLanes];
      Simd::keep_halves(part, Simd::larger(least, Simd::smaller(most, Simd::load(whole))));
      for (int j = 0; j < n; ++j) to[(d + j) * stride] = part[j];
    }
  }

  // Keep a head's numbers as int8; returns their scale.
  static float store(const float* head, int dim, int8_t* to, int stride) {
    float top = 0;
    for (int d = 0; d < dim; ++d) {
      const float size = std::fabs(head[d]);
      top = std::max(top, size < INFINITY ? size : INFINITY);  // of what is no number too
    }
    // As in `quantize`: what cannot be rounded is told by its scale.
    const bool fits = top >= 0x1p-119f && top < INFINITY;
    const float inverse = fits ? 127.0f / top : 0.0f;
    for (int d = 0; d < dim; ++d)
      to[d * stride] = fits ? static_cast<int8_t>(std::nearbyint(head[d] * inverse)) : int8_t{0};
    return top / 127.0f;
  }

  void place(const Layer& layer, const float* weight, const Row& row, float* head) const {
    const int dim = layer.head_dim;
    if (weight != nullptr) rms_norm<Simd>(weight, m_.epsilon, head, head, dim);
    if (const RotaryTable* by = layer.rotary.of(row.length)) turn(*by, row.position, head);
    if (m_.pages.kept == Kept::int8) spread(head, dim);
  }

  // Mix a head's numbers by a Hadamard matrix, in blocks of a power of two, so that a few large
  // ones do not take the precision of all others. Products of keys and queries stay as they are.
  // QuaRot, arXiv:2404.00456.
  static void spread(float* head, int dim) {
    const int block = dim & -dim;
    const float scale = 1 / std::sqrt(static_cast<float>(block));
    for (int half = 1; half < block; half *= 2)
      for (int start = 0; start < dim; start += 2 * half)
        for (int i = start; i < start + half; ++i) {
          const float sum = head[i] + head[i + half], rest = head[i] - head[i + half];
          head[i] = sum;
          head[i + half] = rest;
        }
    for (int d = 0; d < dim; ++d) head[d] *= scale;
  }

  static void turn(const RotaryTable& by, int position, float* head) {
    const int half = by.half;
    const float* cosines =
        by.blocks[position / kRotaryBlock] + size_t(position % kRotaryBlock) * 2 * half;
    const float* sines = cosines + half;
    for (int i = 0; i < half; ++i) {
      const float low = head[i], high = head[i + half];
      head[i] = low * cosines[i] - high * sines[i];
      head[i + half] = high * cosines[i] + low * sines[i];
    }
  }

  Seen seen(const Layer& layer, int r) const {
    const int end = rows_[r].position + 1;
    return {layer.window > 0 && end > layer.window ? end - layer.window : 0, end};
  }

  void answer(const Layer& layer, int i, Tile tile, int kv_head) {
    if (m_.pages.kept == Kept::fp16) answer<Halves<Simd>>(layer, i, tile, kv_head);
    else answer<Codes<Simd>>(layer, i, tile, kv_head);
  }
  template <class Numbers>
  void answer(const Layer& layer, int i, Tile tile, int kv_head) {
    const int dim = layer.head_dim;
    if constexpr (Simd::kTiles)
      if (bf16_ && dim % kBf16Step == 0) {
        PageTiles<Simd, Numbers> by(own_, dim);
        return answer(layer, i, tile, kv_head, by);
      }
    PageVectors<Simd, Numbers> by(own_, dim, m_.pages.wide[i]);
    answer(layer, i, tile, kv_head, by);
  }

  // A key head's queries of some rows.
  template <class Pages>
  void answer(const Layer& layer, int i, Tile tile, int kv_head, Pages& by) {
    const Memory& memory = *rows_[tile.first].memory;
    const int shared = layer.n_heads / layer.n_kv_heads, n = tile.n * shared;
    const int dim = layer.head_dim, wide = m_.pages.wide[i];
    const size_t stride = size_t(layer.qkv.factors.back().n_tiles) * kRows;
    by.take({queries(layer, tile.first) + kv_head * shared * dim, stride, shared, n, dim});
    std::fill_n(own_.most.data(), n, -std::numeric_limits<float>::infinity());
    std::fill_n(own_.lanes.data(), size_t(n) * kLanes, 0.0f);
    std::fill_n(own_.sums.data(), size_t(n) * wide, 0.0f);
    const int begin = seen(layer, tile.first).begin;
    const int end = seen(layer, tile.first + tile.n - 1).end;
    for (int page = begin / kPage; page * kPage < end; ++page) {
      const int start = page * kPage, next = (page + 1) * kPage < end ? page + 1 : page;
      const int low = std::max(begin - start, 0), high = std::min(end - start, kPage);
      by.score(memory.keys(i, kv_head, page), memory.keys(i, kv_head, next), high);
      for (int m = 0; m < n; ++m) {
        const Seen all = seen(layer, tile.first + m / shared);
        soften({std::max(all.begin - start, 0), std::min(all.end - start, kPage)}, m, wide);
      }
      by.mix(memory.values(i, kv_head, page), memory.values(i, kv_head, next), {low, high});
    }
    for (int m = 0; m < n; ++m) {
      const int r = tile.first + m / shared, h = kv_head * shared + m % shared;
      float* to = w_.attended.data() + size_t(r) * layer.query_width() + h * dim;
      finish(m, wide, dim, to);
    }
  }

  // Turn query m's scores of a page into exp(score - most so far), zero where it does not see.
  void soften(Seen seen, int m, int wide) {
    constexpr int kVectors = kPage / kLanes;
    float* scores = own_.scores.data() + m * kPage;
    if (seen.begin >= seen.end) {
      std::fill_n(scores, kPage, 0.0f);
      return;
    }
    const bool whole = seen.begin == 0 && seen.end == kPage;
    const auto hide = [&](float with) {
      std::fill(scores, scores + seen.begin, with);
      std::fill(scores + seen.end, scores + kPage, with);
    };
    if (!whole) hide(-std::numeric_limits<float>::infinity());
    Floats part[kVectors];
    for (int v = 0; v < kVectors; ++v) part[v] = Simd::load(scores + v * kLanes);
    if (m_.attention_cap > 0) {
      for (auto& one : part) one = capped<Simd>(one, m_.attention_cap);
      for (int v = 0; v < kVectors; ++v) Simd::store(scores + v * kLanes, part[v]);
      if (!whole) hide(-std::numeric_limits<float>::infinity());
      for (int v = 0; v < kVectors; ++v) part[v] = Simd::load(scores + v * kLanes);
    }
    Floats top = part[0];
    for (int v = 1; v < kVectors; ++v) top = Simd::larger(top, part[v]);
    const float most = raised(std::max(own_.most[m], Simd::largest(top)), m, wide);
    const auto down = Simd::all(-most), one = Simd::all(1.0f);
    for (int v = 0; v < kVectors; ++v) {
      part[v] = exponential<Simd>(Simd::fused(part[v], one, down));
      Simd::store(scores + v * kLanes, part[v]);
    }
    if (!whole) {
      hide(0.0f);
      for (int v = 0; v < kVectors; ++v) part[v] = Simd::load(scores + v * kLanes);
    }
    float* lanes = own_.lanes.data() + m * kLanes;
    Floats sum = Simd::load(lanes);
    for (const auto& add : part) sum = Simd::fused(add, one, sum);
    Simd::store(lanes, sum);
  }

  // Relate query m's sums to a larger score; returns it.
  float raised(float most, int m, int wide) {
    const float before = own_.most[m];
    own_.most[m] = most;
    if (most == before || before == -std::numeric_limits<float>::infinity()) return most;
    const auto by = exponential<Simd>(Simd::all(before - most));
    float* sums = own_.sums.data() + m * wide;
    for (int d = 0; d < wide; d += kLanes) Simd::store(sums + d, Simd::times(Simd::load(sums + d), by));
    float* lanes = own_.lanes.data() + m * kLanes;
    Simd::store(lanes, Simd::times(Simd::load(lanes), by));
    return most;
  }

  // Divide query m's sums by the sum of its shares.
  void finish(int m, int wide, int dim, float* to) {
    float all = 0;
    for (int j = 0; j < kLanes; ++j) all += own_.lanes[m * kLanes + j];
    const float* sums = own_.sums.data() + m * wide;
    for (int d = 0; d < dim; ++d) to[d] = sums[d] * (1 / all);
  }

  const Model& m_;
  Workspace& w_;
  const std::vector<Row>& rows_;
  const bool bf16_;
  Workspace::Attention& own_;
  Tile tiles_[kMostRows];
  int n_tiles_ = 0;
};

}  // namespace onhand
