// The key/value memory, and the pool of threads.
#include "memory.h"

#include <atomic>

#include "check.h"
#include "pool.h"

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

template <class Number>
void fill(Memory& memory, int from) {
  for (int layer = 0; layer < 2; ++layer) {
    const int more = from + 2 * layer;
    memory.each<Number>(layer, kDims[layer], [&](Number& key, Number& value, size_t at) {
      key = number<Number>(more, at);
      value = number<Number>(more + 1, at);
    });
    if constexpr (sizeof(Number) == 1)
      memory.each_scale(layer, [&](float& key, float& value, size_t at) {
        key = number<float>(more, at);
        value = number<float>(more + 1, at);
      });
  }
}

template <class Number>
bool holds(const Memory& memory, int from) {
  bool same = true;
  for (int layer = 0; layer < 2; ++layer) {
    const int more = from + 2 * layer;
    memory.each<Number>(layer, kDims[layer], [&](Number& key, Number& value, size_t at) {
      same = same && key == number<Number>(more, at) && value == number<Number>(more + 1, at);
    });
    if constexpr (sizeof(Number) == 1)
      memory.each_scale(layer, [&](float& key, float& value, size_t at) {
        same = same && key == number<float>(more, at) && value == number<float>(more + 1, at);
      });
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
  fill<Number>(first, 10);
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
  expect(holds<Number>(first, 10), "%d tokens: a fork that grew left its mark", n);
  fork.set_length(0);
  grow(fork, n);
  fill<Number>(fork, 500);
  expect(holds<Number>(first, 10) && holds<Number>(fork, 500), "%d tokens: a fork went another way", n);
}

template <class Number>
void check_lengths(onhand::Kept kept) {
  const onhand::PageShape shape = two_layers(kept);
  for (int n : {0, 1, 15, 16, 63, 64, 65, 128, 200}) {
    Memory memory(shape);
    grow(memory, n);
    fill<Number>(memory, 3);
    expect(memory.length() == n && holds<Number>(memory, 3), "%d tokens come back as others", n);
    memory.set_length(n / 2);
    Memory half(shape);
    grow(half, n / 2);
    fill<Number>(half, 900);
    expect(memory.length() == n / 2 && holds<Number>(half, 900), "%d tokens, cut in half", n);
    check_forks<Number>(shape, n);
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
