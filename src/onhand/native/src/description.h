// From what Python says of a decoder to a `Model`: everything is checked before anything runs.
#pragma once

#include <nanobind/stl/string.h>

#include <utility>

#include "matrix.h"
#include "model.h"

namespace onhand {

// Reads a dictionary that `onhand.device.engines.native` made; nothing in it is trusted.
class Reader {
 public:
  Reader(nb::dict from, std::vector<nb::object>& keep) : from_(from), keep_(keep) {}

  int number(const char* key, int least, int most) const {
    const int found = value<int>(key, "whole number");
    expect(found >= least && found <= most, std::string(key) + " is out of range");
    return found;
  }
  std::vector<int> numbers(const char* key, int least, int most) const {
    std::vector<int> made;
    for (nb::handle one : value<nb::list>(key, "list of numbers")) {
      int found = 0;
      expect(nb::try_cast(one, found), std::string(key) + " is no list of whole numbers");
      expect(found >= least && found <= most, std::string(key) + " is out of range");
      made.push_back(found);
    }
    return made;
  }
  float real(const char* key) const { return value<float>(key, "number"); }
  std::string word(const char* key) const { return value<std::string>(key, "word"); }

  // `size` numbers, or null where there are none.
  const float* vector(const std::string& key, size_t size) const {
    if (!has(key)) return nullptr;
    const Vector found = kept<Vector>(key, "vector of float32");
    expect(found.shape(0) == size, key + " has another size");
    return found.data();
  }
  // At least so many rows, or null where there is no table.
  const float* table(const std::string& key, size_t least_rows, size_t columns) const {
    if (!has(key)) return nullptr;
    const Table found = kept<Table>(key, "table of float32");
    expect(found.shape(0) >= least_rows && found.shape(1) == columns, key + " has another shape");
    return found.data();
  }
  Norm norm(const std::string& key, size_t size) const {
    return {vector(key, size), vector(key + "_bias", size)};
  }
  Norm needed_norm(const std::string& key, size_t size) const {
    expect(has(key), key + " is missing");
    return norm(key, size);
  }
  Linear linear(const std::string& key, int n_inputs, int n_outputs) const {
    Linear made;
    const nb::list factors = value<nb::list>(key, "list of matrices");
    expect(nb::len(factors) == 1 || nb::len(factors) == 2, key + " has other than 1 or 2 factors");
    for (nb::handle one : factors) {
      expect(nb::isinstance<Matrix>(one), key + " is no list of matrices");
      keep_.push_back(nb::borrow(one));
      made.factors.push_back(nb::cast<const Matrix&>(one).packed());
      expect(made.factors.back().n_inputs == n_inputs, key + " has another width");
      n_inputs = made.factors.back().n_rows;
    }
    expect(n_inputs == n_outputs, key + " has another height");
    made.bias = vector(key + "_bias", n_outputs);
    return made;
  }

 private:
  bool has(const std::string& key) const {
    return from_.contains(key.c_str()) && !from_[key.c_str()].is_none();
  }
  template <class Value>
  Value value(const std::string& key, const char* kind, bool may_convert = true) const {
    expect(from_.contains(key.c_str()), key + " is missing");
    Value found;
    expect(nb::try_cast(from_[key.c_str()], found, may_convert), key + " is no " + kind);
    return found;
  }
  // An array as it is: a converted copy would be gone before it is used.
  template <class Array>
  Array kept(const std::string& key, const char* kind) const {
    const Array found = value<Array>(key, kind, false);
    expect_aligned(found);
    keep_.push_back(from_[key.c_str()]);
    return found;
  }

  nb::dict from_;
  std::vector<nb::object>& keep_;
};

// A table by its number; null for none.
inline const RotaryTable* read_rotary(const Model& model, const Reader& from, const char* key,
                                      int head_dim) {
  const int number = from.number(key, -1, static_cast<int>(model.rotary.size()) - 1);
  if (number < 0) return nullptr;
  const RotaryTable* found = model.rotary[number].get();
  expect(found->half <= head_dim / 2, std::string(key) + " turns more than a head has");
  return found;
}

inline Layer read_layer(const Model& model, const Reader& from) {
  Layer layer;
  layer.n_heads = from.number("n_heads", 1, kMostHeads);
  layer.n_kv_heads = from.number("n_kv_heads", 1, layer.n_heads);
  expect(layer.n_heads % layer.n_kv_heads == 0, "n_heads must be a multiple of n_kv_heads");
  layer.head_dim = from.number("head_dim", 1, kMostHeads);
  layer.mlp_width = from.number("mlp_width", 1, kMostWidth);
  layer.window = from.number("window", 0, kMostContext);
  layer.scale = from.real("scale");
  const int D = model.width;
  layer.attention_norm = from.needed_norm("attention_norm", D);
  layer.attention_post = from.norm("attention_post_norm", D);
  layer.mlp_norm = from.needed_norm("mlp_norm", D);
  layer.mlp_post = from.norm("mlp_post_norm", D);
  layer.query_norm = from.vector("query_norm", layer.head_dim);
  layer.key_norm = from.vector("key_norm", layer.head_dim);
  layer.qkv = from.linear("qkv", D, layer.query_width() + 2 * layer.kv_width());
  layer.out = from.linear("out", layer.query_width(), D);
  layer.inner = from.linear("inner", D, layer.mlp_width * (model.gated ? 2 : 1));
  layer.down = from.linear("down", layer.mlp_width, D);
  layer.rotary.plain = read_rotary(model, from, "rotary", layer.head_dim);
  layer.rotary.stretched = read_rotary(model, from, "rotary_stretched", layer.head_dim);
  layer.rotary.limit = from.number("rotary_limit", 0, kMostLimit);
  const int n = 4 * static_cast<int>(model.layers.size());
  layer.qkv.number = n;
  layer.out.number = n + 1;
  layer.inner.number = n + 2;
  layer.down.number = n + 3;
  return layer;
}

// `keep` gets the objects whose memory the model uses.
inline Model read_model(nb::dict description, nb::list layers, std::vector<nb::object>& keep) {
  Model model;
  const Reader from(description, keep);
  const std::string kv = from.word("kv");
  expect(kv == "fp16" || kv == "int8", "keys and values are kept as fp16 or int8, not " + kv);
  model.pages.kept = kv == "int8" ? Kept::int8 : Kept::fp16;
  model.width = from.number("width", 1, kMostWidth);
  model.vocab_size = from.number("vocab_size", 1, kMostWidth);
  model.context = from.number("context", 1, kMostContext);
  model.epsilon = from.real("norm_epsilon");
  model.embed_scale = from.real("embed_scale");
  model.attention_cap = from.real("attention_softcap");
  model.logit_cap = from.real("logit_softcap");
  model.gated = from.number("gated", 0, 1) != 0;
  const std::string activation = from.word("activation");
  expect(activation == "silu" || activation == "gelu" || activation == "gelu_tanh",
         "there is no activation " + activation);
  model.activation = activation == "silu"   ? Activation::silu
                      : activation == "gelu" ? Activation::gelu
                                             : Activation::gelu_tanh;
  model.final_norm = from.needed_norm("final_norm", model.width);
  model.positions = from.table("positions", model.context, model.width);
  const Linear embed = from.linear("embed", model.width, model.vocab_size);
  expect(embed.factors.size() == 1, "embed is looked up and cannot be a product");
  model.embed = embed.factors.front();
  model.head = from.linear("head", model.width, model.vocab_size);
  for (const int half : from.numbers("rotary_halves", 0, kMostHeads)) {
    model.rotary.push_back(std::make_unique<RotaryTable>());
    model.rotary.back()->half = half;
  }
  for (nb::handle one : layers) {
    expect(nb::isinstance<nb::dict>(one), "a layer is no dictionary");
    Layer layer = read_layer(model, Reader(nb::cast<nb::dict>(one), keep));
    model.pages.add(layer.n_kv_heads, layer.head_dim);
    model.layers.push_back(std::move(layer));
  }
  model.head.number = 4 * static_cast<int>(model.layers.size());
  return model;
}

}  // namespace onhand
