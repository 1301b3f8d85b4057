// Memory for the matrices of a model, one behind another: large pages are then filled whatever the
// sizes, where each matrix for itself would leave half of its last one empty.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace onhand {

// Not to be shared between threads. What it gave outlives it: a block goes with its last piece.
class Arena {
 public:
  // Ask the system for blocks of so many bytes, or of what one piece needs; large pages that
  // nobody writes to cost nothing.
  explicit Arena(size_t block_size) : block_size_(block_size) {}

  // A piece, on a cache line.
  std::shared_ptr<uint8_t> take(size_t size) {
    size = (size + kLine - 1) / kLine * kLine;
    if (left_ < size + kSlack) grow(size + kSlack);
    std::shared_ptr<uint8_t> piece(block_, next_);
    next_ += size;
    left_ -= size;
    return piece;
  }

 private:
  static constexpr size_t kLine = 64;
  static constexpr size_t kHugePage = size_t{2} << 20;
  static constexpr size_t kSlack = 8192;  // prefetches run past the end
  struct Free {
    std::align_val_t alignment;
    void operator()(uint8_t* block) const { ::operator delete(block, alignment); }
  };

  void grow(size_t size) {
    size = std::max(size, block_size_);
    const bool is_large = size >= kHugePage;
    const size_t alignment = is_large ? kHugePage : kLine;
    size = (size + alignment - 1) / alignment * alignment;
    // Not std::aligned_alloc, which Microsoft's library has not.
    const std::align_val_t aligned{alignment};
    uint8_t* made = static_cast<uint8_t*>(::operator new(size, aligned));
#if defined(__linux__)
    if (is_large) madvise(made, size, MADV_HUGEPAGE);
#endif
    block_.reset(made, Free{aligned});
    next_ = made;
    left_ = size;
  }

  const size_t block_size_;
  std::shared_ptr<uint8_t> block_;
  uint8_t* next_ = nullptr;
  size_t left_ = 0;
};

}  // namespace onhand
