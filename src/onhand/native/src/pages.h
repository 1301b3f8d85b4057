// Pages that conversations gave up, for those that need some: a rewind and what follows it, or a
// fork that goes its own way, then asks the system for nothing.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace onhand {

template <class Page>
class SparePages {
 public:
  SparePages() { spare_.reserve(kMost); }

  // A page as somebody left it; null if there is none.
  std::shared_ptr<Page> take() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (spare_.empty()) return nullptr;
    std::shared_ptr<Page> page = std::move(spare_.back());
    spare_.pop_back();
    return page;
  }

  // Keep a page that nobody else holds; others go the usual way, and so do those above the most.
  void give(std::shared_ptr<Page> page) {
    if (page.use_count() != 1) return;
    std::lock_guard<std::mutex> lock(mutex_);
    if (spare_.size() < kMost) spare_.push_back(std::move(page));
  }

 private:
  static constexpr size_t kMost = 32;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Page>> spare_;
};

}  // namespace onhand
