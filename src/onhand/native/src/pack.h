// From the bundle's layout, that of MatMulNBits, to tiles.
#pragma once

#include "format.h"

namespace onhand {

// A matrix as it is stored: see `QuantTensor`.
struct Stored {
  Format format;
  int n_rows;
  int n_inputs;
  const uint8_t* codes;    // (n_rows, n_groups, group * bits / 8), little-endian bit stream
  const uint16_t* scales;  // (n_rows, n_groups) fp16
  const uint8_t* zeros;    // (n_rows, ceil(n_groups * bits / 8)), packed likewise; null if symmetric
};

// Describe the tiles that `pack` fills; their place is not set.
Packed layout(const Format& format, int n_rows, int n_inputs);

// Fill tiles `begin` to `end`; `to` has `layout(...).bytes()` bytes.
void pack(const Stored& from, const Packed& shape, uint8_t* to, int begin, int end);

// Dequantise one row of a packed matrix: n_inputs floats.
void unpack_row(const Packed& from, int row, float* to);

}  // namespace onhand
