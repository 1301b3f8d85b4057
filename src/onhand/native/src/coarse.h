// A copy of a matrix with two bits for each weight: cheap to read, and near enough to say where
// its products are large.
#pragma once

#include <vector>

#include "format.h"

namespace onhand {

constexpr Format kCoarse{2, 64, true};

// Fill tiles `begin` to `end` of `layout(kCoarse, ...)` of a packed matrix; `to` has their bytes.
void coarsen(const Packed& from, uint8_t* to, int begin, int end);

// Find the `wanted` highest of n values, and any that are about as high as the last of them, or
// that are no numbers; `picked` gets their places, ascending.
void pick_highest(const float* values, int n, int wanted, std::vector<int>& picked);

}  // namespace onhand
