// With how many threads steps run while others want the cores as well.
#include "crowding.h"

#include "check.h"

namespace check {
namespace {

// Steps of 10 ms each, in which each thread that waits sleeps for a share of the time, as long as
// more than `free` threads compute: a second more of them each time. Returns the threads at its end.
int steps(onhand::Crowding& crowding, double& now, double seconds, int free, double share) {
  for (const double end = now + seconds; now < end; now += 0.01) {
    const int n = crowding.threads();
    const double slept = n > free ? share * 0.01 * (n - 1) : 0;
    const bool changes = crowding.after(now, 0.01, slept);
    expect(changes == (crowding.threads() != n), "%d threads became %d unsaid", n,
           crowding.threads());
    expect(crowding.threads() >= 1 && crowding.threads() <= crowding.most(), "%d threads of %d",
           crowding.threads(), crowding.most());
  }
  return crowding.threads();
}

void expect_threads(int found, int wanted, const char* when) {
  expect(found == wanted, "%s: %d threads, not %d", when, found, wanted);
}

}  // namespace

void check_crowding() {
  double now = 1000;
  onhand::Crowding two(2);
  expect_threads(steps(two, now, 1, 2, 0.9), 2, "all have a core");
  expect_threads(steps(two, now, 0.15, 1, 0.8), 1, "beside one that computes");
  expect_threads(steps(two, now, 0.3, 1, 0.8), 1, "half a second is not over");

  // What one more costs: as others go on, it is tried ever less often, a tenth of a second each.
  int tried = 0;
  for (int i = 0; i < 2000; ++i) {
    steps(two, now, 0.01, 1, 0.8);
    tried += two.threads() == 2;
  }
  expect(tried >= 20 && tried <= 70, "of 2000 steps %d ran with two threads", tried);
  expect_threads(steps(two, now, 9, 2, 0), 2, "the others have ended");
  expect_threads(steps(two, now, 0.15, 1, 0.8), 1, "others come again");
  expect_threads(steps(two, now, 0.7, 2, 0), 2, "it is tried soon again, as one more was of use");

  // Two threads of which one waits for less than half of the time are faster than one.
  onhand::Crowding slow(2);
  expect_threads(steps(slow, now, 2, 1, 0.5), 2, "two that wait half of the time");

  // Of four threads beside a busy core three compute; beside three busy ones one.
  onhand::Crowding four(4);
  expect_threads(steps(four, now, 0.4, 3, 0.5), 3, "three cores are free");
  expect_threads(steps(four, now, 0.3, 1, 0.7), 1, "one core is free");
  expect_threads(steps(four, now, 3, 4, 0), 4, "all are free");

  four.allow(2);
  expect_threads(four.threads(), 2, "no more are allowed");
  expect_threads(steps(four, now, 5, 4, 0), 2, "nor taken");
  four.settle(now, 1);
  expect_threads(steps(four, now, 0.4, 4, 0), 1, "the system gave no more");
  expect_threads(steps(four, now, 0.3, 4, 0), 2, "and is asked again");

  onhand::Crowding one(1);
  expect_threads(steps(one, now, 3, 0, 1), 1, "one");
}

}  // namespace check
