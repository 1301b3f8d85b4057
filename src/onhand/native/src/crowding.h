// With how many threads steps run while others want the cores as well.
#pragma once

#include <algorithm>

namespace onhand {

// Threads of a step meet behind each product, and a thread that does not get its core, as another
// process computes there, holds up all others at each meeting: two threads beside one busy process
// can be slower than one alone, several times. Threads that all have a core never wait long enough
// to sleep, so that the time they sleep tells. Where it is so much that one thread fewer would be
// as fast, one fewer computes; after a pause it is tried again with one more.
//
// Times are in seconds, of any clock that does not go back.
class Crowding {
 public:
  explicit Crowding(int most) { allow(most); }

  int threads() const { return n_; }
  int most() const { return most_; }

  // From now on use up to so many threads, and begin with all.
  void allow(int most) {
    most_ = n_ = most;
    pause_ = kLeastPause;
    is_tried_ = false;
    forget();
  }

  // Only so many are left, as the system gave no more: go on with these.
  void settle(double now, int n) {
    n_ = n;
    put_off(now);
  }

  // Tell of a step that took so long, and in which threads slept so long together while they waited
  // for one another. Returns whether later ones are to run with another number of threads.
  bool after(double now, double taken, double slept) {
    if (most_ == 1) return false;
    if (n_ < most_ && !is_tried_ && now >= again_) {
      ++n_;
      is_tried_ = true;
      forget();
      return true;
    }
    taken_ += taken;
    slept_ += slept;
    if (taken_ < kWindow) return false;
    // All but the one that is waited for sleep: without them the others share its work.
    const bool is_crowded = n_ > 1 && slept_ > (1.0 / n_ + kMargin) * (n_ - 1) * taken_;
    forget();
    if (is_crowded) {
      --n_;
      put_off(now);
      return true;
    }
    if (is_tried_) pause_ = kLeastPause;
    is_tried_ = false;
    return false;
  }

 private:
  static constexpr double kWindow = 0.1, kMargin = 0.1, kLeastPause = 0.5, kMostPause = 8;

  void forget() { taken_ = slept_ = 0; }

  // Wait longer each time that one more was of no use.
  void put_off(double now) {
    pause_ = is_tried_ ? std::min(2 * pause_, kMostPause) : kLeastPause;
    again_ = now + pause_;
    is_tried_ = false;
    forget();
  }

  int most_ = 1, n_ = 1;
  bool is_tried_ = false;  // one more than before, not judged yet
  double taken_ = 0, slept_ = 0, pause_ = kLeastPause, again_ = 0;
};

}  // namespace onhand
