// Checks of the native kernels without Python: what all of them use.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "kernels.h"

namespace check {

// The same numbers on every system (splitmix64, public domain, Sebastiano Vigna).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  int between(int least, int most);  // both may come
  float real(float least, float most);
  std::vector<float> reals(size_t n, float least, float most);

 private:
  uint64_t state_;
};

// Print what does not hold, as printf does, and have the program fail.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void expect(bool holds, const char* what, ...);

// A matrix of random codes, as it is stored and packed.
struct RandomMatrix {
  onhand::Packed packed;
  std::vector<uint8_t> memory;
  std::vector<int> codes, zeros;  // (rows, padded inputs), (rows, groups)
  std::vector<uint16_t> scales;   // (rows, groups) fp16

  int width() const { return packed.n_groups * packed.format.group; }
  int code(int row, int input) const { return codes[size_t(row) * width() + input]; }
  int zero(int row, int group) const { return zeros[size_t(row) * packed.n_groups + group]; }
  float scale(int row, int group) const;
};

// Scales between half of `scale` and `scale`, or all of `scale` itself where `equal`. Row 0 holds
// the largest code throughout, row 1 zeros.
RandomMatrix random_matrix(const onhand::Format& format, int n_rows, int n_inputs, float scale,
                           bool equal, Random& random);

// All formats that a bundle may hold.
std::vector<onhand::Format> formats();

// What a small decoder has; two layers of other heads each.
struct Shape {
  const char* name;
  bool gated = true, layer_norm = false, learned = false, biases = false, head_norms = false;
  bool post_norms = false, factors = false, wide_heads = false;
  onhand::Activation activation = onhand::Activation::silu;
  int window = 0, rank = 0;
  float cap = 0;
  onhand::Kept kept = onhand::Kept::fp16;
};

// A decoder of each kind.
std::vector<Shape> shapes();

// A decoder of random weights, which it keeps.
class TinyModel {
 public:
  static constexpr int kContext = 192, kVocabulary = 83, kLinears = 9;
  TinyModel(const Shape& shape, uint64_t seed);
  onhand::Model model;
  onhand::Adapter adapter;  // adds nothing where the rank is 0

 private:
  onhand::Layer layer(int n_heads, int n_kv_heads, int head_dim, int mlp_width);
  onhand::Linear linear(int n_inputs, int n_outputs, bool bias);
  onhand::Norm norm(int n);
  const float* keep(std::vector<float> values);
  const onhand::Packed& matrix(int n_rows, int n_inputs);

  Shape shape_;
  Random random_;
  int n_linears_ = 0;
  std::deque<std::vector<float>> floats_;
  std::deque<RandomMatrix> matrices_;
};

void check_formats();
void check_memory();
void check_pool();
void check_crowding();
// `few_rows`: only some numbers of rows, for sanitizers and emulators.
void check_products(const onhand::Kernels& kernels, bool few_rows);
void check_steps(const onhand::Kernels& kernels, bool few_models);
// Where the kernels have products in bf16.
void check_bf16(const onhand::Kernels& kernels);

// Norm of the difference over the norm.
double relative(const std::vector<float>& found, const std::vector<float>& expected);

}  // namespace check
