// Products in bf16 beside a plain loop in double precision, and whole steps beside exact ones.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "bf16.h"
#include "check.h"

namespace check {
namespace {

constexpr float kUntouched = 7e30f;  // where nothing may be written

// The nearest bf16, to even where two are as near.
float rounded(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
  std::memcpy(&x, &bits, sizeof bits);
  return x;
}

// Rows of inputs, as floats that bf16 holds and as products take them.
struct RandomInputs {
  std::vector<float> plain;
  std::vector<onhand::Bf16Line> memory;
  onhand::Bf16Inputs view;

  RandomInputs(int rows, int width, Random& random) {
    const int room = (rows + 31) / 32 * 32;
    plain.resize(size_t(room) * width);
    memory.resize(plain.size() / onhand::kBf16Step);
    view = {memory[0].at, width / onhand::kBf16Step};
    for (int r = 0; r < room; ++r)
      for (int i = 0; i < width; ++i) {
        const float x = rounded(random.real(-1, 1));
        plain[size_t(r) * width + i] = x;
        uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        view.at(r, i / onhand::kBf16Step)[i % onhand::kBf16Step] = static_cast<uint16_t>(bits >> 16);
      }
  }
};

void check_product(const onhand::Kernels& kernels, const RandomMatrix& w, const RandomInputs& x,
                   int rows, int begin, int end) {
  const int stride = w.packed.n_tiles * onhand::kRows, group = w.packed.format.group;
  const int room = (rows + 31) / 32 * 32;
  std::vector<float> out(size_t(room + 1) * stride, kUntouched);
  std::vector<onhand::Workspace::Bytes> scratch(onhand::kBf16Scratch / 64);
  kernels.bf16_product(w.packed, x.view, rows, out.data(), stride, begin, end, scratch[0].at);
  for (int r = 0; r <= room; ++r)
    for (int i = 0; i < stride; ++i) {
      const float found = out[size_t(r) * stride + i];
      if (r == room || i < begin * onhand::kRows || i >= end * onhand::kRows) {
        expect(found == kUntouched, "%s: row %d, output %d was written", kernels.name, r, i);
        continue;
      }
      if (r >= rows || i >= w.packed.n_rows) continue;
      double sum = 0, size = 0;
      for (int k = 0; k < w.width(); ++k) {
        const float scale = w.scale(i, k / group);
        const float weight = rounded(scale * static_cast<float>(w.code(i, k) - w.zero(i, k / group)));
        sum += double{weight} * double{x.plain[size_t(r) * w.width() + k]};
        size += std::abs(double{weight} * double{x.plain[size_t(r) * w.width() + k]});
      }
      expect(std::abs(double{found} - sum) <= 1e-5 * size,
             "%s, %d bits, groups of %d, symmetric %d: %d rows, row %d, output %d is %.9g, not %.9g",
             kernels.name, w.packed.format.bits, group, w.packed.format.symmetric, rows, r, i,
             double{found}, sum);
    }
}

// Scores of the last token of each conversation, all fed in one step.
std::vector<float> scores(const onhand::Kernels& kernels, const TinyModel& tiny, int n_threads,
                          const std::vector<std::vector<int>>& prompts) {
  constexpr int V = TinyModel::kVocabulary;
  onhand::Workspace work(tiny.model, n_threads);
  onhand::Pool pool(n_threads);
  work.fit(tiny.adapter);
  if (tiny.model.bf16_prefill) work.fit_bf16(tiny.model);
  std::vector<onhand::Memory> memories(prompts.size(), onhand::Memory(tiny.model.pages));
  std::vector<float> found(prompts.size() * V);
  std::vector<onhand::Row> rows;
  for (size_t b = 0; b < prompts.size(); ++b) {
    const int n = static_cast<int>(prompts[b].size());
    memories[b].reserve(n);
    for (int t = 0; t < n; ++t)
      rows.push_back({&memories[b], t, prompts[b][t], t + 1 == n ? found.data() + b * V : nullptr,
                      nullptr, tiny.adapter.most_rank() > 0 ? &tiny.adapter : nullptr, n});
    memories[b].set_length(n);
  }
  kernels.step(tiny.model, work, pool, rows);
  return found;
}

void check_prompts(const onhand::Kernels& kernels, Shape shape, Random& random) {
  for (const bool wide_heads : {false, true}) {
    shape.wide_heads = wide_heads;
    TinyModel tiny(shape, 5);
    std::vector<std::vector<int>> prompts;
    for (const int n : {1, 150, 33, 64}) {
      prompts.emplace_back(n);
      for (int& one : prompts.back()) one = random.between(0, TinyModel::kVocabulary - 1);
    }
    const std::vector<float> exact = scores(onhand::kPortable, tiny, 1, prompts);
    tiny.model.bf16_prefill = true;
    for (int threads = 1; threads <= 3; ++threads) {
      const double far = relative(scores(kernels, tiny, threads, prompts), exact);
      std::printf("%s in bf16, %s%s: %.1e of the portable kernels' scores\n", kernels.name,
                  shape.name, wide_heads ? ", wide heads" : "", far);
      expect(far > 0 && far < 0.03, "%s in bf16, %s: %g away from exact scores", kernels.name,
             shape.name, far);
    }
    // Few rows go the exact way.
    const auto few = scores(kernels, tiny, 2, {{3, 1, 4, 1, 5}});
    tiny.model.bf16_prefill = false;
    expect(few == scores(kernels, tiny, 2, {{3, 1, 4, 1, 5}}), "%s, %s: five rows are not exact",
           kernels.name, shape.name);
  }
}

}  // namespace

void check_bf16(const onhand::Kernels& kernels) {
  if (kernels.bf16_product == nullptr) return;
  Random random(7);
  for (const onhand::Format& format : formats()) {
    const RandomMatrix narrow = random_matrix(format, 53, 2 * format.group + 5, 1, false, random);
    const RandomInputs x(70, narrow.width(), random);
    for (const int rows : {1, 16, 17, 32, 33, 49, 70})
      check_product(kernels, narrow, x, rows, 0, narrow.packed.n_tiles);
    check_product(kernels, narrow, x, 40, 1, 3);
  }
  // More inputs than are unpacked at once, and more outputs than are summed together.
  const RandomMatrix wide =
      random_matrix({4, 32, true}, 19 * onhand::kRows, onhand::kBf16Inputs + 70, 1, false, random);
  check_product(kernels, wide, RandomInputs(256, wide.width(), random), 256, 1, 19);
  for (const Shape& shape : shapes()) check_prompts(kernels, shape, random);
}

}  // namespace check
