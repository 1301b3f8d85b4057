#include "coarse.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "half.h"
#include "pack.h"

namespace onhand {
namespace {

constexpr int kBins = 512;

// Codes 0 .. 3 are -2 .. 1 times the scale, which is negative where the largest weight is above
// zero: so the code that has no mirror image goes to the side that needs it. A scale of the root
// mean square is near the best for weights of most shapes; then it is fitted to the codes.
uint16_t coarsen_group(const float* x, int n, uint8_t* codes) {
  float squares = 0, largest = 0;
  for (int i = 0; i < n; ++i) {
    squares += x[i] * x[i];
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  }
  std::fill(codes, codes + kCoarse.group * kCoarse.bits / 8, uint8_t{0});
  const float scale = std::copysign(std::sqrt(squares / n), -largest);
  // Weights that are no numbers make products that are none, which are picked.
  if (!std::isfinite(squares)) return to_half(std::numeric_limits<float>::quiet_NaN());
  const float inverse = scale == 0 ? 0 : 1 / scale;
  float product = 0, size = 0;
  for (int i = 0; i < kCoarse.group; ++i) {
    const float near = i < n && std::isfinite(inverse) ? std::nearbyint(x[i] * inverse) : 0;
    const float code = std::min(std::max(near, -2.0f), 1.0f);
    if (i < n) product += code * x[i];
    size += code * code;
    codes[i / 4] |= static_cast<uint8_t>(static_cast<int>(code + 2) << 2 * (i % 4));
  }
  return to_half(size > 0 ? product / size : 0);
}

}  // namespace

void coarsen(const Packed& from, uint8_t* to, int begin, int end) {
  const Packed shape = layout(kCoarse, kRows, from.n_inputs);
  const int code_bytes = kCoarse.group * kCoarse.bits / 8, n_groups = shape.n_groups;
  std::vector<float> row(from.n_inputs);
  std::vector<uint8_t> codes(size_t{kRows} * n_groups * code_bytes);
  std::vector<uint16_t> scales(size_t{kRows} * n_groups);
  for (int tile = begin; tile < end; ++tile) {
    Packed here = shape;
    here.n_rows = std::min(kRows, from.n_rows - tile * kRows);
    for (int r = 0; r < here.n_rows; ++r) {
      unpack_row(from, tile * kRows + r, row.data());
      for (int g = 0; g < n_groups; ++g) {
        const int first = g * kCoarse.group;
        scales[r * n_groups + g] =
            coarsen_group(row.data() + first, std::min(kCoarse.group, from.n_inputs - first),
                          codes.data() + size_t(r * n_groups + g) * code_bytes);
      }
    }
    const Stored stored{kCoarse, here.n_rows, here.n_inputs, codes.data(), scales.data(), nullptr};
    pack(stored, here, to + tile * shape.tile_bytes(), 0, 1);
  }
}

void pick_highest(const float* values, int n, int wanted, std::vector<int>& picked) {
  float low = std::numeric_limits<float>::infinity(), high = -low;
  for (int i = 0; i < n; ++i) {
    if (!std::isfinite(values[i])) continue;
    low = values[i] < low ? values[i] : low;
    high = values[i] > high ? values[i] : high;
  }
  // Bins of equal width, the highest first; a width that is no number puts all into the first.
  const float step = (kBins - 1) / (high - low);
  const auto bin = [&](float x) {
    if (std::isnan(x) || x > high) return 0;
    if (x < low) return kBins - 1;
    return std::isfinite(step) ? static_cast<int>((high - x) * step) : 0;
  };
  int counts[kBins] = {}, held = 0, last = 0;
  for (int i = 0; i < n; ++i) ++counts[bin(values[i])];
  for (held = counts[0]; held < wanted && last + 1 < kBins;) held += counts[++last];
  picked.clear();
  for (int i = 0; i < n; ++i)
    if (bin(values[i]) <= last) picked.push_back(i);
}

}  // namespace onhand
