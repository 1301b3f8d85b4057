// One conversation as Python holds it: its memory, its adapter, and its state as arrays.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <utility>
#include <vector>

#include "adapter.h"
#include "matrix.h"
#include "memory.h"
#include "spans.h"

namespace onhand {

template <class T>
nanobind::ndarray<nanobind::numpy, T> new_array(const std::vector<size_t>& shape) {
  size_t size = 1;
  for (size_t n : shape) size *= n;
  T* data = new T[size];
  nanobind::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nanobind::ndarray<nanobind::numpy, T>(data, shape.size(), shape.data(), owner);
}

class Conversation {
 public:
  Conversation(const PageShape& shape, std::vector<int> head_dim, int context,
               std::shared_ptr<const Adapter> by)
      : memory(shape), adapter(std::move(by)), shape_(&shape), head_dim_(std::move(head_dim)),
        context_(context) {}

  bool is_of(const PageShape& shape) const { return shape_ == &shape; }

  void rewind(int length) {
    expect(length >= 0 && length <= memory.length(), "rewind goes back to a length that was");
    memory.set_length(length);
  }

  nanobind::list state() const { return span(0, memory.length()); }

  // Of some tokens, every layer in turn: keys and values, (n_kv_heads, tokens, head_dim) each, fp16 as uint16
  // or int8; after those that are int8 their scales, (n_kv_heads, tokens, 1) float each.
  nanobind::list span(int begin, int end) const {
    expect(0 <= begin && begin <= end && end <= memory.length(), "a span is of what is remembered");
    return shape_->kept == Kept::fp16 ? numbers<uint16_t>({begin, end})
                                      : numbers<int8_t>({begin, end});
  }

  // The same parts in, in the place of all.
  void load(const nanobind::list& parts, int length) {
    expect(length >= 0, "a state's length must be 0 or more");
    expect(length <= context_, "the state is longer than the context");
    Memory fresh(*shape_);
    fill(fresh, parts, length);
    memory = std::move(fresh);
  }

  // The same parts in, behind all; what fails changes nothing.
  void append(const nanobind::list& parts, int n) {
    expect(n >= 0, "a span's length must be 0 or more");
    expect(n <= context_ - memory.length(), "the span goes beyond the context");
    fill(memory, parts, n);
  }

  Memory memory;
  std::shared_ptr<const Adapter> adapter;

 private:
  bool has_scales() const { return shape_->kept == Kept::int8; }
  std::vector<size_t> shape_of(size_t layer, int length, int width) const {
    return {size_t(shape_->n_kv_heads[layer]), size_t(length), size_t(width)};
  }

  template <class Number>
  nanobind::list numbers(Span span) const {
    const int n = span.end - span.begin;
    nanobind::list parts;
    for (size_t i = 0; i < head_dim_.size(); ++i) {
      const auto shape = shape_of(i, n, head_dim_[i]);
      auto keys = new_array<Number>(shape), values = new_array<Number>(shape);
      const LayerSpan part(memory, *shape_, int(i), head_dim_[i], span);
      {
        nanobind::gil_scoped_release free;  // it takes a while, and only numbers are touched
        part.get(keys.data(), values.data());
      }
      parts.append(keys);
      parts.append(values);
      if (!has_scales()) continue;
      const auto one = shape_of(i, n, 1);
      auto of_keys = new_array<float>(one), of_values = new_array<float>(one);
      part.get_scales(of_keys.data(), of_values.data());
      parts.append(of_keys);
      parts.append(of_values);
    }
    return parts;
  }

  // A part of a state, if it has its type and shape.
  template <class T>
  static const T* part(const nanobind::list& parts, size_t number,
                       const std::vector<size_t>& shape) {
    using Array = nanobind::ndarray<const T, nanobind::ndim<3>, nanobind::c_contig,
                                    nanobind::device::cpu>;
    Array found;
    expect(nanobind::try_cast(parts[number], found, false), "a part has another type");
    expect_aligned(found);
    for (size_t i = 0; i < shape.size(); ++i)
      expect(found.shape(i) == shape[i], "a part has another shape");
    return found.data();
  }

  // Append the parts to a memory, after all of them were checked.
  void fill(Memory& to, const nanobind::list& parts, int n) const {
    if (shape_->kept == Kept::fp16)
      append_to<uint16_t>(to, parts, n);
    else
      append_to<int8_t>(to, parts, n);
  }

  template <class Number>
  void append_to(Memory& to, const nanobind::list& parts, int n) const {
    const size_t each = has_scales() ? 4 : 2;
    expect(parts.size() == each * head_dim_.size(), "another number of parts");
    std::vector<const Number*> keys, values;
    std::vector<const float*> of_keys, of_values;
    for (size_t i = 0; i < head_dim_.size(); ++i) {
      const auto shape = shape_of(i, n, head_dim_[i]), one = shape_of(i, n, 1);
      keys.push_back(part<Number>(parts, each * i, shape));
      values.push_back(part<Number>(parts, each * i + 1, shape));
      if (!has_scales()) continue;
      of_keys.push_back(part<float>(parts, each * i + 2, one));
      of_values.push_back(part<float>(parts, each * i + 3, one));
    }
    // Only numbers are read and written from here on: other threads may use Python meanwhile.
    nanobind::gil_scoped_release free;
    const Span span{to.length(), to.length() + n};
    to.reserve(n);
    to.set_length(span.end);
    for (size_t i = 0; i < head_dim_.size(); ++i) {
      const LayerSpan part(to, *shape_, int(i), head_dim_[i], span);
      part.put(keys[i], values[i]);
      if (has_scales()) part.put_scales(of_keys[i], of_values[i]);
    }
  }

  const PageShape* shape_;
  std::vector<int> head_dim_;
  int context_;
};

}  // namespace onhand
