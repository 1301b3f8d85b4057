// Small decoders of random weights, in every format and with every option.
#include <cmath>
#include <utility>

#include "check.h"

namespace check {

using onhand::Linear;

namespace {
// (kRotaryBlock, 2, half) cosines and sines.
std::vector<float> positions(int half) {
  std::vector<float> table(size_t(onhand::kRotaryBlock) * 2 * half);
  for (int i = 0; i < onhand::kRotaryBlock; ++i)
    for (int j = 0; j < half; ++j) {
      const double angle = i * std::pow(100.0, -double(j) / half);
      table[(size_t(i) * 2) * half + j] = static_cast<float>(std::cos(angle));
      table[(size_t(i) * 2 + 1) * half + j] = static_cast<float>(std::sin(angle));
    }
  return table;
}
}  // namespace

const float* TinyModel::keep(std::vector<float> values) {
  floats_.push_back(std::move(values));
  return floats_.back().data();
}

// Formats take turns, so that one step mixes them.
const onhand::Packed& TinyModel::matrix(int n_rows, int n_inputs) {
  const std::vector<onhand::Format> all = formats();
  const onhand::Format format = all[size_t(random_.between(0, int(all.size()) - 1))];
  const float scale = 2.0f / static_cast<float>((1 << format.bits) * std::sqrt(double(n_inputs)));
  matrices_.push_back(random_matrix(format, n_rows, n_inputs, scale, false, random_));
  return matrices_.back().packed;
}

Linear TinyModel::linear(int n_inputs, int n_outputs, bool bias) {
  Linear made;
  constexpr int kBetween = 21;
  if (shape_.factors) made.factors.push_back(matrix(kBetween, n_inputs));
  made.factors.push_back(matrix(n_outputs, shape_.factors ? kBetween : n_inputs));
  if (bias) made.bias = keep(random_.reals(n_outputs, -0.1f, 0.1f));
  made.number = n_linears_++;
  if (shape_.rank > 0) {
    const auto first = random_.reals(size_t(shape_.rank) * n_inputs, -0.1f, 0.1f);
    const auto second = random_.reals(size_t(shape_.rank) * n_outputs, -0.1f, 0.1f);
    adapter.set(made.number, shape_.rank, first.data(), n_inputs, second.data(), n_outputs);
  }
  return made;
}

onhand::Norm TinyModel::norm(int n) {
  const float* weight = keep(random_.reals(n, 0.8f, 1.2f));
  return {weight, shape_.layer_norm ? keep(random_.reals(n, -0.1f, 0.1f)) : nullptr};
}

onhand::Layer TinyModel::layer(int n_heads, int n_kv_heads, int head_dim, int mlp_width) {
  onhand::Layer made;
  const int width = model.width;
  made.n_heads = n_heads;
  made.n_kv_heads = n_kv_heads;
  made.head_dim = head_dim;
  made.mlp_width = mlp_width;
  made.window = shape_.window;
  made.scale = 1 / std::sqrt(static_cast<float>(head_dim));
  made.attention_norm = norm(width);
  made.mlp_norm = norm(width);
  if (shape_.post_norms) made.attention_post = norm(width);
  if (shape_.post_norms) made.mlp_post = norm(width);
  if (shape_.head_norms) made.query_norm = keep(random_.reals(head_dim, 0.8f, 1.2f));
  if (shape_.head_norms) made.key_norm = keep(random_.reals(head_dim, 0.8f, 1.2f));
  made.qkv = linear(width, made.query_width() + 2 * made.kv_width(), shape_.biases);
  made.out = linear(made.query_width(), width, shape_.biases);
  made.inner = linear(width, mlp_width * (shape_.gated ? 2 : 1), shape_.biases);
  made.down = linear(mlp_width, width, shape_.biases);
  if (!shape_.learned) {
    model.rotary.push_back(std::make_unique<onhand::RotaryTable>());
    model.rotary.back()->half = head_dim / 2;
    model.rotary.back()->blocks.push_back(keep(positions(head_dim / 2)));
    made.rotary.plain = model.rotary.back().get();
  }
  model.pages.add(n_kv_heads, head_dim);
  return made;
}

TinyModel::TinyModel(const Shape& shape, uint64_t seed)
    : adapter(kLinears), shape_(shape), random_(seed) {
  model.pages.kept = shape.kept;
  model.width = 72;
  model.vocab_size = kVocabulary;
  model.epsilon = 1e-5f;
  model.activation = shape.activation;
  model.gated = shape.gated;
  model.attention_cap = model.logit_cap = shape.cap;
  model.embed = matrix(kVocabulary, model.width);
  if (shape.learned)
    model.positions = keep(random_.reals(size_t(kContext) * model.width, -0.1f, 0.1f));
  model.layers.push_back(layer(7, 1, shape.wide_heads ? 32 : 24, 112));
  model.layers.push_back(layer(3, 3, shape.wide_heads ? 64 : 16, 80));
  model.final_norm = norm(model.width);
  model.head = linear(model.width, kVocabulary, false);
}

std::vector<Shape> shapes() {
  Shape llama{"llama"}, gpt{"gpt"}, gemma{"gemma"}, cut{"factors"}, narrow{"int8"};
  llama.head_norms = true;
  gpt.gated = false;
  gpt.layer_norm = gpt.learned = gpt.biases = true;
  gpt.activation = onhand::Activation::gelu;
  gemma.post_norms = true;
  gemma.activation = onhand::Activation::gelu_tanh;
  gemma.window = 20;
  gemma.cap = 30;
  cut.factors = true;
  cut.rank = 3;
  narrow.kept = onhand::Kept::int8;
  return {llama, gpt, gemma, cut, narrow};
}

}  // namespace check
