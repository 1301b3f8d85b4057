// Keys and values of one conversation, in pages that conversations may share.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "pages.h"

namespace onhand {

constexpr int kPage = 64;  // tokens
constexpr int kLanes = 16; // tokens of a block of keys

class Page;

// Numbers of keys and values: fp16, or int8 with a scale for each token and head.
enum class Kept { fp16, int8 };

// Where each layer's part of a page begins, in bytes.
struct PageShape {
  Kept kept = Kept::fp16;
  std::vector<size_t> keys, values;  // by layer
  std::vector<int> n_kv_heads, wide; // wide: a head's numbers, up to whole vectors
  size_t bytes = 0;
  std::shared_ptr<SparePages<Page>> spare = std::make_shared<SparePages<Page>>();

  void add(int n_kv, int dim) {
    n_kv_heads.push_back(n_kv);
    wide.push_back((dim + kLanes - 1) / kLanes * kLanes);
    keys.push_back(bytes);
    bytes += n_kv * part_bytes(wide.size() - 1);
    values.push_back(bytes);
    bytes += n_kv * part_bytes(wide.size() - 1);
  }
  // Of one head's keys, or of its values: the numbers, and the scales behind them.
  size_t part_bytes(size_t layer) const {
    const size_t n = size_t(wide[layer]) * kPage;
    return kept == Kept::fp16 ? sizeof(uint16_t) * n : n + sizeof(float) * kPage;
  }
};

// Of each head of a layer: keys as blocks of 16 tokens, (kPage / 16, wide, 16), so that lanes are
// tokens; values as (kPage, wide), so that lanes are numbers of a head. Zero where nothing was
// written yet: what is not seen is multiplied by zero.
class Page {
 public:
  explicit Page(size_t bytes) : bytes_(bytes), data_(fresh(bytes)) {}
  Page(const Page&) = delete;
  Page& operator=(const Page&) = delete;
  void clear() { std::memset(data_.get(), 0, bytes_); }
  void copy(const Page& other) { std::memcpy(data_.get(), other.data_.get(), bytes_); }
  uint8_t* data() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlign{64};
  struct Free { void operator()(uint8_t* p) const { ::operator delete(p, kAlign); } };
  static uint8_t* fresh(size_t bytes) {
    return static_cast<uint8_t*>(::operator new(bytes, kAlign));
  }
  size_t bytes_;
  std::unique_ptr<uint8_t, Free> data_;
};

class Memory {
 public:
  explicit Memory(const PageShape& shape) : shape_(&shape) {}
  Memory(const Memory&) = default;
  Memory& operator=(const Memory&) = default;
  ~Memory() { set_length(0); }

  int length() const { return length_; }
  void set_length(int length) {
    length_ = length;
    const size_t n_pages = (length + kPage - 1) / kPage;
    for (size_t i = n_pages; i < pages_.size(); ++i) shape_->spare->give(std::move(pages_[i]));
    pages_.resize(n_pages);
  }

  // Make room for `n` more tokens; pages that others hold are copied before they are written.
  void reserve(int n) {
    const int first = length_ / kPage, last = (length_ + n + kPage - 1) / kPage;
    for (int i = first; i < last; ++i) {
      if (i == static_cast<int>(pages_.size())) {
        pages_.push_back(unused_page());
        pages_.back()->clear();
      } else if (pages_[i].use_count() > 1) {
        std::shared_ptr<Page> own = unused_page();
        own->copy(*pages_[i]);
        pages_[i] = std::move(own);
      }
    }
  }

  // Of a head's part of a page, where numbers are int8: (kPage).
  float* scales(uint8_t* part, int layer) const {
    return reinterpret_cast<float*>(part + size_t(shape_->wide[layer]) * kPage);
  }

  uint8_t* keys(int layer, int head, int page) const {
    return pages_[page]->data() + shape_->keys[layer] + head * shape_->part_bytes(layer);
  }
  uint8_t* values(int layer, int head, int page) const {
    return pages_[page]->data() + shape_->values[layer] + head * shape_->part_bytes(layer);
  }

 private:
  std::shared_ptr<Page> unused_page() const {
    std::shared_ptr<Page> page = shape_->spare->take();
    return page != nullptr ? page : std::make_shared<Page>(shape_->bytes);
  }

  const PageShape* shape_;
  std::vector<std::shared_ptr<Page>> pages_;
  int length_ = 0;
};

}  // namespace onhand
