// Checks of pool.h, run by test_native_pool.py; every failure ends the program with a line.
#include "pool.h"

#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>

using onhand::Pool;

namespace {

void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("not so: %s\n", what);
  std::exit(1);
}

void sleep_ms(int n) { std::this_thread::sleep_for(std::chrono::milliseconds(n)); }

long sleeps() {
  rusage used;
  getrusage(RUSAGE_THREAD, &used);
  return used.ru_nvcsw;
}

// Plain memory, written in one part of a job and read in the next by another thread: a race is
// seen by the thread sanitizer, a chunk done twice or not at all by the sums.
void parts_of_a_job(int n_threads, int n, int chunk) {
  Pool pool(n_threads);
  std::vector<int> first(n), second(n), third(n);
  for (int step = 1; step <= 30; ++step) {
    pool.run([&](int thread) {
      if (step % 10 == 0 && thread == step / 10 % n_threads) sleep_ms(1);
      // Two calls without a meeting between, as neither reads what the other writes.
      pool.for_each_chunk(n, chunk, thread, [&](int begin, int end) {
        for (int i = begin; i < end; ++i) first[i] += i;
      });
      pool.for_each_chunk(n, 1, thread, [&](int begin, int end) {
        for (int i = begin; i < end; ++i) second[i] += 1;
      });
      pool.meet();
      pool.for_each_chunk(n, chunk, thread, [&](int begin, int end) {
        for (int i = begin; i < end; ++i) third[i] += first[n - 1 - i] + second[n - 1 - i];
      });
    });
    for (int i = 0; i < n; ++i) {
      expect(first[i] == step * i && second[i] == step, "every chunk is done once");
      expect(third[i] == step * (step + 1) / 2 * (n - i), "a part sees what was done before it");
    }
  }
}

// Between jobs it may have fewer threads, and as many as before again.
void other_sizes() {
  Pool pool(4);
  std::vector<int> done(100);
  int n_jobs = 0;
  for (int n_threads : {4, 1, 1, 3, 2, 4, 4, 1, 4}) {
    pool.resize(n_threads);
    expect(pool.size() == n_threads, "it has the threads that it was told");
    for (int step = 0; step < 5; ++step, ++n_jobs) {
      std::atomic<int> n_called{0};
      pool.run([&](int thread) {
        ++n_called;
        pool.for_each_chunk(100, 4, thread, [&](int begin, int end) {
          for (int i = begin; i < end; ++i) ++done[i];
        });
        pool.meet();
        expect(done[99 - thread] == n_jobs + 1, "a part sees what was done before it");
      });
      expect(n_called == n_threads, "every thread is called once");
    }
  }
}

// A thread that is held up in its first chunk does not hold up the rest of its share.
void others_take_over(int n_threads) {
  Pool pool(n_threads);
  std::atomic<int> n_done{0};
  constexpr int kChunks = 40;
  for (int held = 0; held < n_threads; ++held) {
    n_done = 0;
    std::atomic<bool> holds{false};
    pool.run([&](int thread) {
      pool.for_each_chunk(kChunks, 1, thread, [&](int, int) {
        if (thread == held && !holds.exchange(true))
          while (n_done < kChunks - 1) std::this_thread::yield();
        ++n_done;
      });
    });
    expect(n_done == kChunks, "all is done");
  }
}

// Who waits gives its core away: in a meeting, and between jobs.
void waiting_is_sleeping() {
  Pool pool(2);
  long slept_inside = 0, slept_between = 0, ended = 0;
  for (int i = 0; i < 200 && (slept_inside == 0 || slept_between == 0); ++i) {
    pool.run([&](int thread) {
      if (thread == 1 && i > 0) slept_between += sleeps() - ended;
      pool.meet();
      const long before = sleeps();
      if (thread == 0) sleep_ms(5);
      pool.meet();
      if (thread == 1) slept_inside += sleeps() - before;
      if (thread == 1) ended = sleeps();
    });
    sleep_ms(5);
  }
  expect(slept_inside > 0, "a thread sleeps when a meeting takes long");
  expect(slept_between > 0, "a thread sleeps when no job comes");
}

}  // namespace

int main() {
  for (int n_threads : {1, 2, 3, 7})
    for (int n : {1, 2, 37, 400})
      for (int chunk : {1, 4, 64}) parts_of_a_job(n_threads, n, chunk);
  for (int n_threads : {2, 3, 5}) others_take_over(n_threads);
  other_sizes();
  waiting_is_sleeping();
  std::printf("all is well\n");
}
