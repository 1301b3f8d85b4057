// The key/value memory, and the pool of threads.
#include "memory.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "check.h"
#include "pool.h"
#include "spans.h"

namespace check {
namespace {

using onhand::Memory;
constexpr int kHeads = 3, kDims[] = {16, 20};

onhand::PageShape two_layers(onhand::Kept kept) {
  onhand::PageShape shape;
  shape.kept = kept;
  shape.add(1, kDims[0]);
  shape.add(kHeads, kDims[1]);
  return shape;
}

// Other ones in every place of both layers, and small enough for any kind.
template <class Number>
Number number(int from, size_t at) { return static_cast<Number>((from + at * 7) % 113); }

// What one layer holds: keys, values and the scales of both, each number of its place.
template <class Number>
struct Numbers {
  Numbers(int layer, int n_tokens)
      : n_heads(layer == 0 ? 1 : kHeads), keys(size_t(n_heads) * n_tokens * kDims[layer]),
        values(keys.size()), of_keys(size_t(n_heads) * n_tokens), of_values(of_keys.size()) {}

  void count(int from) {
    for (size_t at = 0; at < keys.size(); ++at) {
      keys[at] = number<Number>(from, at);
      values[at] = number<Number>(from + 1, at);
    }
    for (size_t at = 0; at < of_keys.size(); ++at) {
      of_keys[at] = number<float>(from, at);
      of_values[at] = number<float>(from + 1, at);
    }
  }
  bool operator==(const Numbers& other) const {
    return keys == other.keys && values == other.values &&
           (sizeof(Number) > 1 || (of_keys == other.of_keys && of_values == other.of_values));
  }

  int n_heads;
  std::vector<Number> keys, values;
  std::vector<float> of_keys, of_values;
};

onhand::LayerSpan span_of(const Memory& memory, const onhand::PageShape& shape, int layer,
                          int begin = 0) {
  return {memory, shape, layer, kDims[layer], {begin, memory.length()}};
}

template <class Number>
void fill(Memory& memory, const onhand::PageShape& shape, int from) {
  for (int layer = 0; layer < 2; ++layer) {
    Numbers<Number> all(layer, memory.length());
    all.count(from + 2 * layer);
    const auto span = span_of(memory, shape, layer);
    span.put(all.keys.data(), all.values.data());
    if (sizeof(Number) == 1) span.put_scales(all.of_keys.data(), all.of_values.data());
  }
}

template <class Number>
bool holds(const Memory& memory, const onhand::PageShape& shape, int from) {
  bool same = true;
  for (int layer = 0; layer < 2; ++layer) {
    Numbers<Number> wanted(layer, memory.length()), found(layer, memory.length());
    wanted.count(from + 2 * layer);
    const auto span = span_of(memory, shape, layer);
    span.get(found.keys.data(), found.values.data());
    if (sizeof(Number) == 1) span.get_scales(found.of_keys.data(), found.of_values.data());
    same = same && found == wanted;
  }
  return same;
}

void grow(Memory& memory, int n) {
  memory.reserve(n);
  memory.set_length(memory.length() + n);
}

template <class Number>
void check_forks(const onhand::PageShape& shape, int n) {
  Memory first(shape);
  grow(first, n);
  fill<Number>(first, shape, 10);
  Memory fork = first;
  for (int head = 0; head < kHeads; ++head)
    expect(n == 0 || fork.keys(1, head, 0) == first.keys(1, head, 0), "%d tokens: a fork copies", n);
  // Only the page that is written next gets a copy.
  grow(fork, 1);
  const int page = n / onhand::kPage;
  for (int i = 0; i <= page; ++i) {
    const bool shared = i * onhand::kPage < n && fork.values(0, 0, i) == first.values(0, 0, i);
    expect(shared == (i < page), "%d tokens: page %d shared is %d", n, i, shared);
  }
  expect(holds<Number>(first, shape, 10), "%d tokens: a fork that grew left its mark", n);
  fork.set_length(0);
  grow(fork, n);
  fill<Number>(fork, shape, 500);
  expect(holds<Number>(first, shape, 10) && holds<Number>(fork, shape, 500),
         "%d tokens: a fork went another way", n);
}

// Tokens from `begin` on, as an array of their own, are the end of the whole; and back.
template <class Number>
void check_span(const onhand::PageShape& shape, int n, int begin) {
  Memory memory(shape), other(shape);
  grow(memory, n);
  fill<Number>(memory, shape, 7);
  grow(other, n);
  fill<Number>(other, shape, 7);
  const int m = n - begin;
  for (int layer = 0; layer < 2; ++layer) {
    const size_t dim = kDims[layer];
    Numbers<Number> all(layer, n), part(layer, m), blank(layer, m);
    all.count(7 + 2 * layer);
    const auto from = span_of(memory, shape, layer, begin);
    const auto to = span_of(other, shape, layer, begin);
    to.put(blank.keys.data(), blank.values.data());
    from.get(part.keys.data(), part.values.data());
    to.put(part.keys.data(), part.values.data());
    if (sizeof(Number) == 1) {
      to.put_scales(blank.of_keys.data(), blank.of_values.data());
      from.get_scales(part.of_keys.data(), part.of_values.data());
      to.put_scales(part.of_keys.data(), part.of_values.data());
    }
    for (int h = 0; h < all.n_heads; ++h) {
      const auto whole = all.keys.begin() + (size_t(h) * n + begin) * dim;
      const bool same = std::equal(whole, whole + m * dim, part.keys.begin() + h * m * dim);
      expect(same, "%d tokens from %d on are others", m, begin);
    }
  }
  expect(holds<Number>(other, shape, 7), "%d tokens from %d on, put back", m, begin);
}

template <class Number>
void check_lengths(onhand::Kept kept) {
  const onhand::PageShape shape = two_layers(kept);
  for (int n : {0, 1, 15, 16, 63, 64, 65, 128, 200}) {
    Memory memory(shape);
    grow(memory, n);
    fill<Number>(memory, shape, 3);
    expect(memory.length() == n && holds<Number>(memory, shape, 3),
           "%d tokens come back as others", n);
    memory.set_length(n / 2);
    Memory half(shape);
    grow(half, n / 2);
    fill<Number>(half, shape, 900);
    expect(memory.length() == n / 2 && holds<Number>(half, shape, 900),
           "%d tokens, cut in half", n);
    check_forks<Number>(shape, n);
    for (int begin : {0, 1, 15, 16, 17, 64, 70})
      if (begin <= n) check_span<Number>(shape, n, begin);
  }
}

}  // namespace

void check_memory() {
  check_lengths<uint16_t>(onhand::Kept::fp16);
  check_lengths<int8_t>(onhand::Kept::int8);
}

void check_pool() {
  for (int n = 1; n <= 4; ++n) {
    onhand::Pool pool(n);
    for (int round = 0; round < 50; ++round) {
      // Each thread reads what its neighbour wrote before they met.
      std::vector<int> written(n), read(n);
      pool.run([&](int thread) {
        for (int turn = 1; turn <= 3; ++turn) {
          written[thread] = turn * (thread + 1);
          pool.meet();
          read[thread] += written[(thread + 1) % n];
          pool.meet();
        }
      });
      for (int i = 0; i < n; ++i)
        expect(read[i] == 6 * ((i + 1) % n + 1), "%d threads: thread %d read %d", n, i, read[i]);
    }
  }
}

}  // namespace check
