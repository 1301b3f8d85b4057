// Checks the kernels of every instruction set that this processor has; exits with 1 if one fails.
//
//   onhand_check [--quick] [--steps] [instruction set ...]
//
// --quick leaves numbers of rows and threads out; --steps leaves products out, which know no threads.
#include "check.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <string>

#include "processor.h"

namespace check {
namespace {
int n_failed = 0;
}

uint64_t Random::next() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

int Random::between(int least, int most) {
  return least + static_cast<int>(next() % static_cast<uint64_t>(most - least + 1));
}

float Random::real(float least, float most) {
  return least + (most - least) * static_cast<float>(next() >> 40) * 0x1p-24f;
}

std::vector<float> Random::reals(size_t n, float least, float most) {
  std::vector<float> made(n);
  for (float& one : made) one = real(least, most);
  return made;
}

double relative(const std::vector<float>& found, const std::vector<float>& expected) {
  double wrong = 0, size = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    wrong += std::pow(double{found[i]} - double{expected[i]}, 2);
    size += std::pow(double{expected[i]}, 2);
  }
  return std::sqrt(wrong / size);
}

void expect(bool holds, const char* what, ...) {
  if (holds) return;
  ++n_failed;
  std::va_list values;
  va_start(values, what);
  std::fputs("FAILED ", stderr);
  std::vfprintf(stderr, what, values);
  std::fputs("\n", stderr);
  va_end(values);
}

}  // namespace check

namespace {
// Take a word away if it is there.
bool take(std::vector<std::string>& words, const char* word) {
  const auto found = std::find(words.begin(), words.end(), word);
  if (found == words.end()) return false;
  words.erase(found);
  return true;
}
}  // namespace

int main(int n_words, char** words) {
  std::vector<std::string> wanted(words + 1, words + n_words);
  const bool quick = take(wanted, "--quick"), only_steps = take(wanted, "--steps");
  std::vector<const onhand::Kernels*> chosen;
  for (const onhand::Kernels* one : onhand::usable())
    if (wanted.empty() || std::find(wanted.begin(), wanted.end(), one->name) != wanted.end())
      chosen.push_back(one);
  if (chosen.size() < std::max<size_t>(wanted.size(), 1)) {
    std::fputs("this processor does not have every instruction set asked for\n", stderr);
    return 2;
  }
  check::check_formats();
  check::check_memory();
  check::check_pool();
  check::check_crowding();
  for (const onhand::Kernels* one : chosen) {
    if (!only_steps) check::check_products(*one, quick);
    check::check_steps(*one, quick);
    check::check_bf16(*one);
  }
  if (check::n_failed > 0) {
    std::fprintf(stderr, "%d checks failed\n", check::n_failed);
    return 1;
  }
  std::printf("all checks hold:");
  for (const onhand::Kernels* one : chosen) std::printf(" %s", one->name);
  std::printf("\n");
  return 0;
}
