// Products of every format with 1 to 40 rows, beside a plain loop in double precision.
#include <cmath>
#include <cstring>

#include "check.h"
#include "products.h"

namespace check {
namespace {

using onhand::Format;
constexpr int kMost = 40;           // rows
constexpr int kRoom = kMost + onhand::kRows;  // tile instructions read whole sixteens
constexpr float kUntouched = 7e30f; // where nothing may be written

struct RandomInputs {
  std::vector<int8_t> codes;
  std::vector<float> scales, minus_sums;
  std::vector<int32_t> starts;
  onhand::Inputs view;
};

// Row 0 is the largest input throughout, row 1 the smallest.
void fill(RandomInputs& x, const RandomMatrix& w, bool equal, Random& random) {
  const int n_groups = w.packed.n_groups, group = w.packed.format.group;
  x.codes.resize(size_t(kRoom) * w.width());
  x.scales = random.reals(size_t(kRoom) * n_groups, equal ? 1 : 0.001f, 1);
  x.starts.assign(size_t(kRoom) * n_groups, 0);
  x.minus_sums.assign(size_t(kRoom) * n_groups, 0);
  for (size_t i = 0; i < x.codes.size(); ++i) {
    const size_t row = i / w.width();
    x.codes[i] = static_cast<int8_t>(row == 0 ? 127 : row == 1 ? -127 : random.between(-127, 127));
    x.starts[i / group] -= w.packed.format.middle() * x.codes[i];
    x.minus_sums[i / group] -= x.codes[i];
  }
  x.view = {n_groups,        group,           x.codes.data(),
            x.scales.data(), x.starts.data(), x.minus_sums.data()};
}

// A product of one output, and the sum of what its terms are without their signs.
struct Plain { double value, size; };

Plain plain(const RandomMatrix& w, const RandomInputs& x, int output, int row) {
  Plain sum{0, 0};
  const int group = w.packed.format.group;
  for (int g = 0; g < w.packed.n_groups; ++g) {
    const double scale =
        double{w.scale(output, g)} * double{x.scales[size_t(row) * w.packed.n_groups + g]};
    for (int i = g * group; i < (g + 1) * group; ++i) {
      const int term = (w.code(output, i) - w.zero(output, g)) * x.codes[size_t(row) * w.width() + i];
      sum.value += scale * term;
      sum.size += scale * std::abs(term);
    }
  }
  return sum;
}

struct Case {
  const onhand::Kernels& kernels;
  const RandomMatrix& w;
  const RandomInputs& x;
  int stride;
  std::vector<float> run(int rows, int begin, int end) const {
    std::vector<float> out(size_t(kMost) * stride, kUntouched);
    std::vector<onhand::Workspace::Bytes> scratch(onhand::kScratch / 64 + 1);
    kernels.product(w.packed, x.view, rows, out.data(), stride, begin, end, scratch[0].at);
    return out;
  }
};

// Every row computed on its own; `exact` where floats hold every sum.
std::vector<float> check_values(const Case& c, bool exact) {
  const Format& f = c.w.packed.format;
  std::vector<float> all(size_t(kMost) * c.stride, kUntouched);
  for (int row = 0; row < kMost; ++row) {
    RandomInputs from = c.x;
    from.view = c.x.view.from(row);
    const std::vector<float> out = Case{c.kernels, c.w, from, c.stride}.run(1, 0, c.w.packed.n_tiles);
    std::memcpy(all.data() + size_t(row) * c.stride, out.data(), sizeof(float) * c.stride);
    for (int i = 0; i < c.w.packed.n_rows; ++i) {
      const Plain sum = plain(c.w, c.x, i, row);
      const double wrong = std::abs(out[i] - sum.value);
      expect(wrong <= (exact ? 0 : 1e-6 * sum.size),
             "%s, %d bits, groups of %d, symmetric %d: row %d, output %d is %.9g, not %.9g",
             c.kernels.name, f.bits, f.group, f.symmetric, row, i, double{out[i]}, sum.value);
    }
  }
  return all;
}

// Rows together, and tiles apart, are the same bits; nothing else is touched.
void check_bits(const Case& c, const std::vector<float>& expected, int rows, int begin, int end) {
  const Format& f = c.w.packed.format;
  const std::vector<float> out = c.run(rows, begin, end);
  for (int row = 0; row < kMost; ++row)
    for (int i = 0; i < c.stride; ++i) {
      const size_t at = size_t(row) * c.stride + i;
      const bool mine = row < rows && i >= begin * onhand::kRows && i < end * onhand::kRows;
      if (std::memcmp(&out[at], mine ? &expected[at] : &kUntouched, sizeof(float)) == 0) continue;
      expect(false, "%s, %d bits, groups of %d, symmetric %d: %d rows, row %d, output %d: other bits",
             c.kernels.name, f.bits, f.group, f.symmetric, rows, row, i);
      return;
    }
}

}  // namespace

void check_products(const onhand::Kernels& kernels, bool few_rows) {
  Random random(2);
  for (const Format& format : formats()) {
    // The second matrix is wider than what is unpacked at a time, or as narrow as can be.
    const bool narrow = few_rows && format.bits != 4;
    for (int n_inputs : {2 * format.group + 5, narrow ? 1 : onhand::kChunk + 70}) {
      const bool wide = n_inputs > onhand::kChunk;
      const RandomMatrix w = random_matrix(format, wide ? 33 : 53, n_inputs, 1, !wide, random);
      RandomInputs x;
      fill(x, w, !wide, random);
      const int n_tiles = w.packed.n_tiles;
      const Case one{kernels, w, x, n_tiles * onhand::kRows};
      const std::vector<float> expected = check_values(one, !wide);
      for (int rows = 1; rows <= kMost; ++rows) {
        const bool edge = rows <= 20 || rows == 33 || rows == kMost;
        if (edge || !(few_rows || wide)) check_bits(one, expected, rows, 0, n_tiles);
      }
      check_bits(one, expected, 3, 1, 2);
      check_bits(one, expected, 20, 1, n_tiles);
    }
  }
}

}  // namespace check
