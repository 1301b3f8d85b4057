// Some tokens' keys and values between a memory's pages and plain arrays (n_kv_heads, tokens, dim).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "memory.h"

namespace onhand {

struct Span { int begin, end; };  // tokens

// Of one layer. The arrays hold the span's tokens alone, in one page after the other.
class LayerSpan {
 public:
  LayerSpan(const Memory& memory, const PageShape& shape, int layer, int dim, Span span)
      : memory_(memory), layer_(layer), n_heads_(shape.n_kv_heads[layer]),
        wide_(shape.wide[layer]), dim_(dim), span_(span) {}

  template <class Number>
  void put(const Number* keys, const Number* values) const {
    each_run([&](int h, int t, int n, size_t at) {
      Number* k = key<Number>(h, t);
      const Number* from = keys + at * dim_;
      if (n == kLanes)
        for (int d = 0; d < dim_; ++d)
          for (int lane = 0; lane < kLanes; ++lane)
            k[d * kLanes + lane] = from[lane * dim_ + d];
      else
        for (int lane = 0; lane < n; ++lane)
          for (int d = 0; d < dim_; ++d) k[d * kLanes + lane] = from[lane * dim_ + d];
      for (int i = 0; i < n; ++i)
        std::memcpy(value<Number>(h, t + i), values + (at + i) * dim_, sizeof(Number) * dim_);
    });
  }

  template <class Number>
  void get(Number* keys, Number* values) const {
    each_run([&](int h, int t, int n, size_t at) {
      const Number* k = key<Number>(h, t);
      Number* to = keys + at * dim_;
      for (int lane = 0; lane < n; ++lane)
        for (int d = 0; d < dim_; ++d) to[lane * dim_ + d] = k[d * kLanes + lane];
      for (int i = 0; i < n; ++i)
        std::memcpy(values + (at + i) * dim_, value<Number>(h, t + i), sizeof(Number) * dim_);
    });
  }

  // The scales of int8, (n_kv_heads, tokens).
  void put_scales(const float* keys, const float* values) const {
    each_run([&](int h, int t, int n, size_t at) {
      std::copy_n(keys + at, n, key_scales(h, t));
      std::copy_n(values + at, n, value_scales(h, t));
    });
  }

  void get_scales(float* keys, float* values) const {
    each_run([&](int h, int t, int n, size_t at) {
      std::copy_n(key_scales(h, t), n, keys + at);
      std::copy_n(value_scales(h, t), n, values + at);
    });
  }

 private:
  // Call use(head, token, n, place) for tokens of one block of lanes, `place` counting all heads'.
  template <class Use>
  void each_run(Use use) const {
    const int n_tokens = span_.end - span_.begin;
    for (int h = 0; h < n_heads_; ++h)
      for (int t = span_.begin, n; t < span_.end; t += n) {
        n = std::min(kLanes - t % kLanes, span_.end - t);
        use(h, t, n, size_t(h) * n_tokens + (t - span_.begin));
      }
  }

  template <class Number>
  Number* key(int h, int t) const {
    const int slot = t % kPage;
    return reinterpret_cast<Number*>(memory_.keys(layer_, h, t / kPage)) +
           size_t(slot / kLanes) * wide_ * kLanes + slot % kLanes;
  }
  template <class Number>
  Number* value(int h, int t) const {
    return reinterpret_cast<Number*>(memory_.values(layer_, h, t / kPage)) +
           size_t(t % kPage) * wide_;
  }
  float* key_scales(int h, int t) const {
    return memory_.scales(memory_.keys(layer_, h, t / kPage), layer_) + t % kPage;
  }
  float* value_scales(int h, int t) const {
    return memory_.scales(memory_.values(layer_, h, t / kPage), layer_) + t % kPage;
  }

  const Memory& memory_;
  int layer_, n_heads_, wide_, dim_;
  Span span_;
};

}  // namespace onhand
