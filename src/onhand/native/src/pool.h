// A pool of threads for steps that last microseconds to seconds.
//
// Workers spin for a moment after a step, since the next token's step follows at once, and then
// sleep. Barriers inside a step spin, and yield where another process holds the core.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
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

class Pool {
 public:
  explicit Pool(int n_threads) : n_threads_(n_threads) {
    for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { work(i); });
  }
  ~Pool() {
    stop_ = true;
    wake();
    for (auto& one : workers_) one.join();
  }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int size() const { return n_threads_; }

  // Run job(thread) on every thread, this one included, and wait for all.
  void run(const std::function<void(int)>& job) {
    job_ = &job;
    left_.store(n_threads_ - 1, std::memory_order_relaxed);
    if (n_threads_ > 1) wake();
    job(0);
    wait([this] { return left_.load(std::memory_order_acquire) == 0; });
  }

  // Wait inside a job until every thread is here.
  void meet() {
    if (n_threads_ == 1) return;
    const uint32_t round = round_.load(std::memory_order_acquire);
    if (met_.fetch_add(1, std::memory_order_acq_rel) == n_threads_ - 1) {
      met_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
    } else {
      wait([&] { return round_.load(std::memory_order_acquire) != round; });
    }
  }

 private:
  static constexpr int kYieldAfter = 4000;    // spins, about 50 microseconds
  static constexpr int kSleepAfter = 200000;  // spins, some milliseconds

  template <class Done>
  static void wait(Done done) {
    for (int spins = 0; !done(); ++spins) {
      pause();
      if (spins > kYieldAfter) std::this_thread::yield();
    }
  }

  void wake() {
    { std::lock_guard<std::mutex> lock(mutex_); epoch_.fetch_add(1, std::memory_order_release); }
    if (sleeping_.load(std::memory_order_acquire) > 0) condition_.notify_all();
  }

  void work(int index) {
    uint32_t seen = 0;
    while (true) {
      int spins = 0;
      while (epoch_.load(std::memory_order_acquire) == seen && ++spins < kSleepAfter) pause();
      if (epoch_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        ++sleeping_;
        condition_.wait(lock, [&] { return epoch_.load(std::memory_order_relaxed) != seen; });
        --sleeping_;
      }
      seen = epoch_.load(std::memory_order_acquire);
      if (stop_) return;
      (*job_)(index);
      left_.fetch_sub(1, std::memory_order_release);
    }
  }

  const int n_threads_;
  std::vector<std::thread> workers_;
  const std::function<void(int)>* job_ = nullptr;
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<int> left_{0};
  alignas(64) std::atomic<int> met_{0};
  alignas(64) std::atomic<uint32_t> round_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable condition_;
};

}  // namespace onhand
