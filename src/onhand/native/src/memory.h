// Keys and values of one conversation, in pages that conversations may share.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "format.h"
#include "half.h"

namespace onhand {

constexpr int kPage = 64;  // tokens
constexpr int kLanes = 16; // tokens of a block of keys

// Where each layer's part of a page begins, in halves.
struct PageShape {
  std::vector<size_t> keys, values;  // by layer
  std::vector<int> n_kv_heads, head_dim;
  size_t halves = 0;

  void add(int n_kv, int dim) {
    dim = (dim + kLanes - 1) / kLanes * kLanes;
    n_kv_heads.push_back(n_kv);
    head_dim.push_back(dim);
    keys.push_back(halves);
    halves += static_cast<size_t>(n_kv) * dim * kPage;
    values.push_back(halves);
    halves += static_cast<size_t>(n_kv) * dim * kPage;
  }
};

// Of each head of a layer: keys as blocks of 16 tokens, (kPage / 16, head_dim, 16), so that lanes
// are tokens; values as (kPage, head_dim), so that lanes are numbers of a head. fp16.
using Page = std::vector<uint16_t>;

class Memory {
 public:
  explicit Memory(const PageShape& shape) : shape_(&shape) {}

  int length() const { return length_; }
  void set_length(int length) {
    length_ = length;
    pages_.resize((length + kPage - 1) / kPage);
  }

  // Make room for `n` more tokens; pages that others hold are copied before they are written.
  void reserve(int n) {
    const int first = length_ / kPage, last = (length_ + n + kPage - 1) / kPage;
    for (int i = first; i < last; ++i) {
      if (i == static_cast<int>(pages_.size()))
        pages_.push_back(std::make_shared<Page>(shape_->halves));
      else if (pages_[i].use_count() > 1)
        pages_[i] = std::make_shared<Page>(*pages_[i]);
    }
  }

  // Copy one layer's keys and values out, or in: (n_kv_heads, length, head_dim) float each.
  void copy_out(int layer, int dim, float* keys, float* values) const {
    each(layer, dim, [&](uint16_t& key, uint16_t& value, size_t at) {
      keys[at] = to_float(key);
      values[at] = to_float(value);
    });
  }
  void copy_in(int layer, int dim, const float* keys, const float* values) {
    each(layer, dim, [&](uint16_t& key, uint16_t& value, size_t at) {
      key = to_half(keys[at]);
      value = to_half(values[at]);
    });
  }

  uint16_t* keys(int layer, int head, int page) const {
    return pages_[page]->data() + shape_->keys[layer] +
           static_cast<size_t>(head) * shape_->head_dim[layer] * kPage;
  }
  uint16_t* values(int layer, int head, int page) const {
    return pages_[page]->data() + shape_->values[layer] +
           static_cast<size_t>(head) * shape_->head_dim[layer] * kPage;
  }

 private:
  template <class Use>
  void each(int layer, int dim, Use use) const {
    const int wide = shape_->head_dim[layer];
    size_t at = 0;
    for (int h = 0; h < shape_->n_kv_heads[layer]; ++h)
      for (int t = 0; t < length_; ++t) {
        const int slot = t % kPage;
        uint16_t* k = keys(layer, h, t / kPage) +
                      static_cast<size_t>(slot / kLanes) * wide * kLanes + slot % kLanes;
        uint16_t* v = values(layer, h, t / kPage) + static_cast<size_t>(slot) * wide;
        for (int d = 0; d < dim; ++d, ++at) use(k[d * kLanes], v[d], at);
      }
  }

  const PageShape* shape_;
  std::vector<std::shared_ptr<Page>> pages_;
  int length_ = 0;
};

}  // namespace onhand
