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

  // Of every layer in turn: keys and values, (n_kv_heads, length, head_dim) each, fp16 as uint16
  // or int8; after those that are int8 their scales, (n_kv_heads, length, 1) float each.
  nanobind::list state() const {
    return shape_->kept == Kept::fp16 ? numbers<uint16_t>() : numbers<int8_t>();
  }

  // The same parts in.
  void load(const nanobind::list& parts, int length) {
    expect(length >= 0, "a state's length must be 0 or more");
    expect(length <= context_, "the state is longer than the context");
    memory = shape_->kept == Kept::fp16 ? read<uint16_t>(parts, length)
                                            : read<int8_t>(parts, length);
  }

  Memory memory;
  std::shared_ptr<const Adapter> adapter;

 private:
  bool has_scales() const { return shape_->kept == Kept::int8; }
  std::vector<size_t> shape_of(size_t layer, int length, int width) const {
    return {size_t(shape_->n_kv_heads[layer]), size_t(length), size_t(width)};
  }

  template <class Number>
  nanobind::list numbers() const {
    nanobind::list parts;
    for (size_t i = 0; i < head_dim_.size(); ++i) {
      const auto shape = shape_of(i, memory.length(), head_dim_[i]);
      auto keys = new_array<Number>(shape), values = new_array<Number>(shape);
      memory.each<Number>(int(i), head_dim_[i], [&](Number key, Number value, size_t at) {
        keys.data()[at] = key;
        values.data()[at] = value;
      });
      parts.append(keys);
      parts.append(values);
      if (!has_scales()) continue;
      const auto one = shape_of(i, memory.length(), 1);
      auto of_keys = new_array<float>(one), of_values = new_array<float>(one);
      memory.each_scale(int(i), [&](float key, float value, size_t at) {
        of_keys.data()[at] = key;
        of_values.data()[at] = value;
      });
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

  template <class Number>
  Memory read(const nanobind::list& parts, int length) const {
    const size_t each = has_scales() ? 4 : 2;
    expect(parts.size() == each * head_dim_.size(), "another number of parts");
    Memory fresh(*shape_);
    fresh.reserve(length);
    fresh.set_length(length);
    for (size_t i = 0; i < head_dim_.size(); ++i) {
      const auto shape = shape_of(i, length, head_dim_[i]);
      const Number* keys = part<Number>(parts, each * i, shape);
      const Number* values = part<Number>(parts, each * i + 1, shape);
      fresh.each<Number>(int(i), head_dim_[i], [&](Number& key, Number& value, size_t at) {
        key = keys[at];
        value = values[at];
      });
      if (!has_scales()) continue;
      const float* of_keys = part<float>(parts, each * i + 2, shape_of(i, length, 1));
      const float* of_values = part<float>(parts, each * i + 3, shape_of(i, length, 1));
      fresh.each_scale(int(i), [&](float& key, float& value, size_t at) {
        key = of_keys[at];
        value = of_values[at];
      });
    }
    return fresh;
  }

  const PageShape* shape_;
  std::vector<int> head_dim_;
  int context_;
};

}  // namespace onhand
