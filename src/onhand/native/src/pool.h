// A pool of threads for steps that last microseconds to seconds.
//
// Who waits spins for a moment, since what it waits for is mostly about to happen, and then sleeps:
// a core that spins is taken from the thread that it waits for, or from another process. Work is
// dealt out in chunks, so that a thread which does not get its core holds up one chunk and not a
// whole share.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace onhand {

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

struct Range { int begin, end; };

class Pool {
 public:
  explicit Pool(int n_threads) : most_(n_threads), shares_(new Share[n_threads]) {
    start(n_threads);
  }
  ~Pool() { end(); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return n_threads_; }

  // Run later jobs on 1 to as many threads as the pool was made for. Between jobs only, and by one
  // caller at a time. Threads that are not used do not exist: one that slept would be woken at
  // every step with the others.
  void resize(int n_threads) {
    if (n_threads == n_threads_) return;
    end();
    for (int i = 0; i < most_; ++i) {
      shares_[i].taken = 0;
      shares_[i].call = 0;
    }
    start(n_threads);
  }

  // A thread's part of n things.
  Range share(int n, int thread) const { return {begin_of(n, thread), begin_of(n, thread + 1)}; }

  // Run job(thread) on every thread, this one included, and wait for all.
  void run(const std::function<void(int)>& job) {
    job_ = &job;
    left_.store(n_threads_ - 1);
    epoch_.fetch_add(1);
    rouse();
    job(0);
    slept_.fetch_add(wait(kMeetSpin, [this] { return left_.load() == 0; }));
  }

  // Seconds that threads slept in jobs since this was asked last, together, while they waited for
  // one another.
  double take_slept() {
    return std::chrono::duration<double>(Clock::duration(slept_.exchange(0))).count();
  }

  // Wait inside a job until every thread is here.
  void meet() {
    if (n_threads_ == 1) return;
    const uint32_t round = round_.load();
    if (met_.fetch_add(1) == n_threads_ - 1) {
      met_.store(0);
      round_.store(round + 1);
      rouse();
    } else {
      slept_.fetch_add(wait(kMeetSpin, [&] { return round_.load() != round; }));
    }
  }

  // Call f(begin, end) for the numbers 0 .. n in chunks, each on one of the threads; every thread
  // calls this, with its own number and the same n and chunk. A thread begins with its own share,
  // one chunk after the other, as memory likes it, and then takes what others have not come to.
  // It returns when nothing is left to take, while others may still compute.
  template <class F>
  void for_each_chunk(int n, int chunk, int thread, F f) {
    const int n_chunks = (n + chunk - 1) / chunk;
    const uint64_t call = ++shares_[thread].call;
    for (int i = 0; i < n_threads_; ++i) {
      const int owner = (thread + i) % n_threads_;
      const int first = begin_of(n_chunks, owner), end = begin_of(n_chunks, owner + 1);
      for (int one; (one = first + take(shares_[owner].taken, call, end - first)) < end;)
        f(one * chunk, std::min(n, (one + 1) * chunk));
    }
  }

 private:
  using Clock = std::chrono::steady_clock;
  // Threads that all have a core meet within this.
  static constexpr std::chrono::microseconds kMeetSpin{50};
  // What lies between the steps of two tokens; longer only where nobody asks for the next one.
  static constexpr std::chrono::microseconds kStepSpin{300};

  // `taken` counts chunks of a thread's share in its low bits, and in the others says in which call
  // of `for_each_chunk`. Nobody has to clear it: what an earlier call left there counts as none,
  // and a later one shows that all of this one is taken. `call` is the thread's own count of calls.
  struct alignas(64) Share {
    std::atomic<uint64_t> taken{0};
    uint64_t call = 0;
  };
  static constexpr int kCountBits = 16;

  int begin_of(int n, int thread) const {
    return static_cast<int>(static_cast<int64_t>(n) * thread / n_threads_);
  }

  // Return the number of a chunk that is this thread's now; n if none of n is left.
  static int take(std::atomic<uint64_t>& taken, uint64_t call, int n) {
    const uint64_t none = call << kCountBits;
    uint64_t seen = taken.load(std::memory_order_relaxed);
    for (;;) {
      const uint64_t now = std::max(seen, none);
      if (now - none >= static_cast<uint64_t>(n)) return n;
      if (taken.compare_exchange_weak(seen, now + 1, std::memory_order_relaxed))
        return static_cast<int>(now - none);
    }
  }

  // `done` reads what others store, all in one order with `sleeping_`: either it sees the news, or
  // who stored them sees that somebody sleeps. Returns how long it waited if it slept, else 0.
  template <class Done>
  Clock::rep wait(std::chrono::microseconds spin, Done done) {
    Clock::time_point until{};
    for (int i = 1; !done(); ++i) {
      pause();
      if (i % 64 != 0) continue;
      const auto now = Clock::now();
      if (i == 64) until = now + spin;
      if (now < until) continue;
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_.fetch_add(1);
      condition_.wait(lock, done);
      sleeping_.fetch_sub(1);
      return (Clock::now() - until + spin).count();
    }
    return 0;
  }

  void rouse() {
    if (sleeping_.load() == 0) return;
    // Between its look at the news and its sleep a thread holds the mutex.
    { std::lock_guard<std::mutex> lock(mutex_); }
    condition_.notify_all();
  }

  void start(int n_threads) {
    stop_ = false;
    const uint32_t seen = epoch_.load();
    try {
      for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this, i, seen] { work(i, seen); });
    } catch (...) {
      end();  // the system gives no more threads; the caller's own is left
      throw;
    }
    n_threads_ = n_threads;
  }

  void end() {
    stop_ = true;
    epoch_.fetch_add(1);
    rouse();
    for (auto& one : workers_) one.join();
    workers_.clear();
    n_threads_ = 1;
  }

  void work(int index, uint32_t seen) {
    while (true) {
      wait(kStepSpin, [&] { return epoch_.load() != seen; });
      ++seen;
      if (stop_) return;
      (*job_)(index);
      if (left_.fetch_sub(1) == 1) rouse();
    }
  }

  const int most_;
  int n_threads_ = 1;
  std::unique_ptr<Share[]> shares_;
  const std::function<void(int)>* job_ = nullptr;
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<int> left_{0};
  alignas(64) std::atomic<int> met_{0};
  alignas(64) std::atomic<uint32_t> round_{0};
  alignas(64) std::atomic<int> sleeping_{0};
  alignas(64) std::atomic<Clock::rep> slept_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable condition_;
  std::vector<std::thread> workers_;  // the last member: threads begin when all else is there
};

}  // namespace onhand
