// How a group-quantised matrix lies in memory for streaming.
//
// Sixteen rows make a tile. A tile is a sequence of blocks, one for each group of inputs, in the
// order in which a product reads them:
//
//   codes    group * 16 * bits / 8 bytes
//   scales   16 x fp16
//   zeros    16 x uint8, of asymmetric formats only
//
// A *step* is 4 inputs of the 16 rows, 64 bytes: row r has bytes 4 r to 4 r + 3, which is what one
// dot-product instruction takes. Codes of fewer than 8 bits share bytes: with 4 bits, byte i of a
// line holds byte i of two steps; with 2 bits of four; with 3 bits two lines hold the lower two
// bits of four steps each and a third line one more bit of all eight.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__GNUC__)
#define ONHAND_INLINE inline __attribute__((always_inline))
#else
#define ONHAND_INLINE inline
#endif

namespace onhand {

constexpr int kRows = 16;       // of a tile
constexpr int kStep = 4;        // inputs of a step
constexpr int kLine = 64;       // bytes of a step once unpacked

struct Format {
  int bits;        // 2, 3, 4 or 8
  int group;       // inputs that share a scale: 32, 64 or 128
  bool symmetric;  // the zero point is 2^(bits - 1)

  constexpr int code_bytes() const { return group * kRows * bits / 8; }
  constexpr int block_bytes() const { return code_bytes() + 2 * kRows + (symmetric ? 0 : kRows); }
  constexpr int middle() const { return 1 << (bits - 1); }
};

// A matrix of `n_rows` x `n_inputs`, both padded to whole tiles and groups.
struct Packed {
  Format format{};
  int n_rows = 0;
  int n_inputs = 0;
  int n_tiles = 0;
  int n_groups = 0;
  const uint8_t* data = nullptr;

  size_t tile_bytes() const { return static_cast<size_t>(n_groups) * format.block_bytes(); }
  size_t bytes() const { return n_tiles * tile_bytes(); }
  const uint8_t* tile(int i) const { return data + i * tile_bytes(); }
  // The matrix of the rows from a tile on.
  Packed from(int tile) const {
    Packed rest = *this;
    rest.n_rows -= tile * kRows;
    rest.n_tiles -= tile;
    rest.data = this->tile(tile);
    return rest;
  }
  // Some tiles as a matrix of their own.
  Packed part(int first, int n) const {
    return {format, n * kRows, n_inputs, n, n_groups, tile(first)};
  }
};

// Rows of inputs as int8, one scale for each group: x = scale * code. What a zero point takes off
// the sum of a group is kept as products want it: where it is the middle, an integer to start
// from; else a factor of the zero point.
struct Inputs {
  int n_groups = 0;
  int group = 0;
  int8_t* codes = nullptr;      // (rows, n_groups * group)
  float* scales = nullptr;      // (rows, n_groups)
  int32_t* starts = nullptr;    // (rows, n_groups), -middle * sum of the codes
  float* minus_sums = nullptr;  // (rows, n_groups), -sum of the codes

  Inputs from(int row) const {
    const size_t at = static_cast<size_t>(row) * n_groups;
    return {n_groups, group, codes + at * group, scales + at, starts + at, minus_sums + at};
  }
  // The same rows from a group on.
  Inputs past(int g) const {
    return {n_groups, group, codes + size_t(g) * group, scales + g, starts + g, minus_sums + g};
  }
};

}  // namespace onhand
