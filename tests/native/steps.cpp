// Whole steps of small decoders: the same bits however they are cut, and alike everywhere.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <utility>

#include "check.h"

namespace check {
namespace {

using onhand::Kernels;
using onhand::Memory;
using Tokens = std::vector<int>;

constexpr int V = TinyModel::kVocabulary;

// What a decoder of the Python module holds.
class Runner {
 public:
  Runner(const Kernels& kernels, const TinyModel& tiny, int n_threads)
      : kernels_(kernels), model_(tiny.model), adapter_(tiny.adapter),
        work_(tiny.model, n_threads), pool_(n_threads) {
    work_.fit(adapter_);
  }

  Memory memory() const { return Memory(model_.pages); }

  // Append tokens to conversations; (V) scores after each token of the first.
  std::vector<float> score(std::vector<std::pair<Memory*, Tokens>> batch) {
    std::vector<float> scores(batch[0].second.size() * V);
    std::vector<onhand::Row> rows;
    int n_scored = 0;
    const auto flush = [&] {
      if (!rows.empty()) kernels_.step(model_, work_, pool_, rows);
      rows.clear();
      n_scored = 0;
    };
    for (size_t b = 0; b < batch.size(); ++b) {
      auto& [memory, tokens] = batch[b];
      const int start = memory->length(), length = start + static_cast<int>(tokens.size());
      memory->reserve(static_cast<int>(tokens.size()));
      for (size_t t = 0; t < tokens.size(); ++t) {
        float* to = b == 0 ? scores.data() + t * V : nullptr;
        const auto* adapter = adapter_.most_rank() > 0 ? &adapter_ : nullptr;
        rows.push_back({memory, start + static_cast<int>(t), tokens[t], to, nullptr, adapter,
                        length});
        n_scored += to != nullptr;
        if (rows.size() == onhand::kMostRows || n_scored == onhand::kMostScores) flush();
      }
      memory->set_length(length);
    }
    flush();
    return scores;
  }

 private:
  const Kernels& kernels_;
  const onhand::Model& model_;
  const onhand::Adapter& adapter_;
  onhand::Workspace work_;
  onhand::Pool pool_;
};

Tokens part(const Tokens& all, int begin, int end) {
  return {all.begin() + begin, all.begin() + end};
}

bool same(const std::vector<float>& found, const std::vector<float>& all, int begin) {
  const size_t bytes = found.size() * sizeof(float);
  return std::memcmp(found.data(), all.data() + size_t(begin) * V, bytes) == 0;
}

// In pieces of any size beside other conversations; then a fork that goes another way.
void check_cuts(Runner& runner, const Tokens& tokens, const std::vector<float>& expected,
                const char* where, Random& random) {
  const int n = static_cast<int>(tokens.size());
  Memory first = runner.memory(), second = runner.memory(), third = runner.memory();
  for (int begin = 0; begin < n;) {
    const int end = std::min(n, begin + random.between(1, random.between(1, 40)));
    const Tokens some = part(tokens, 0, random.between(1, 3));
    const auto found = runner.score({{&first, part(tokens, begin, end)}, {&second, some}});
    expect(same(found, expected, begin), "%s: tokens %d to %d", where, begin, end);
    if (second.length() > 90) std::swap(second, third);
    begin = end;
  }
  const int back = n * 2 / 3;
  Memory fork = first;
  fork.set_length(back);
  const Tokens other(size_t(n - back), 5);
  runner.score({{&fork, other}});
  first.set_length(n - 1);
  expect(same(runner.score({{&first, part(tokens, n - 1, n)}}), expected, n - 1),
         "%s: the last token, after a fork went another way", where);
  fork.set_length(back);
  expect(same(runner.score({{&fork, part(tokens, back, n)}}), expected, back),
         "%s: a fork that came back", where);
}

// What no float holds gives scores that are no numbers, and what is next to nothing some that are.
void check_extremes(const Kernels& kernels, onhand::Kept kept) {
  Shape shape{"llama"};
  shape.kept = kept;
  TinyModel tiny(shape, 6);
  for (const float scale : {INFINITY, NAN, 1e-38f, 0.0f}) {
    tiny.model.embed_scale = scale;
    Runner runner(kernels, tiny, 1);
    Memory memory = runner.memory();
    for (const float one : runner.score({{&memory, {1, 2, 3}}}))
      expect(std::isnan(one) == !(scale < 1), "%s: inputs of %g give %g", kernels.name,
             double{scale}, double{one});
  }
}

}  // namespace

void check_steps(const Kernels& kernels, bool few_models) {
  Random random(3);
  check_extremes(kernels, onhand::Kept::fp16);
  check_extremes(kernels, onhand::Kept::int8);
  for (const Shape& shape : shapes()) {
    const TinyModel tiny(shape, 4);
    Tokens tokens(few_models ? 70 : 150);
    for (int& one : tokens) one = random.between(0, V - 1);
    Runner plain(onhand::kPortable, tiny, 1), alone(kernels, tiny, 1);
    Memory portable = plain.memory(), whole = alone.memory();
    const auto by_portable = plain.score({{&portable, tokens}});
    const auto expected = alone.score({{&whole, tokens}});
    const double far = relative(expected, by_portable);
    std::printf("%s, %s: %.1e of the portable kernels' scores\n", kernels.name, shape.name, far);
    // A rounding to int8 that falls to the other side is worth some thousandths.
    expect(far < 0.02, "%s, %s: %g away from the portable kernels", kernels.name, shape.name, far);
    for (int threads = 1; threads <= 4; ++threads) {
      if (few_models && threads != 3) continue;
      char where[80];
      std::snprintf(where, sizeof where, "%s, %s, %d threads", kernels.name, shape.name, threads);
      Runner runner(kernels, tiny, threads);
      Memory again = runner.memory();
      expect(same(runner.score({{&again, tokens}}), expected, 0), "%s: the whole", where);
      check_cuts(runner, tokens, expected, where, random);
    }
  }
}

}  // namespace check
