#include "pack.h"

#include <algorithm>
#include <cstring>

#include "half.h"

namespace onhand {
namespace {

// Where code (row, input) of a block lies: bits `shift` and up of `byte`; a third bit of a 3-bit
// code lies in bit `upper_shift` of `upper`.
struct Place {
  int byte, shift, upper, upper_shift;
};

constexpr Place place(int bits, int row, int input) {
  const int step = input / kStep, lane = kStep * row + input % kStep;
  switch (bits) {
    case 8: return {kLine * step + lane, 0, 0, 0};
    case 4: return {kLine * (step / 2) + lane, 4 * (step % 2), 0, 0};
    case 2: return {kLine * (step / 4) + lane, 2 * (step % 4), 0, 0};
    default: {
      const int line = 3 * kLine * (step / 8);
      return {line + kLine * (step % 8 / 4) + lane, 2 * (step % 4), line + 2 * kLine + lane,
              step % 8};
    }
  }
}

inline int stream_code(const uint8_t* stream, int bits, int i) {
  const int bit = i * bits;
  int value = stream[bit / 8] >> (bit % 8);
  if (bit % 8 + bits > 8) value |= stream[bit / 8 + 1] << (8 - bit % 8);
  return value & ((1 << bits) - 1);
}

}  // namespace

Packed layout(const Format& format, int n_rows, int n_inputs) {
  Packed made;
  made.format = format;
  made.n_rows = n_rows;
  made.n_inputs = n_inputs;
  made.n_tiles = (n_rows + kRows - 1) / kRows;
  made.n_groups = (n_inputs + format.group - 1) / format.group;
  return made;
}

namespace {

// Everything below takes four bytes as a number, the first byte the lowest, as all processors do
// that have kernels. A row's codes of one line (8 bits), two (4) or four (2) are one such number,
// and so are its bytes there: packing is to give the codes their places within a number, and the
// numbers of 16 rows their places in the line.
inline uint32_t word(const uint8_t* from) {
  uint32_t value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Swap the bits of `mask` with those `shift` above them.
inline uint32_t swapped(uint32_t x, uint32_t mask, int shift) {
  const uint32_t differs = (x ^ x >> shift) & mask;
  return x ^ differs ^ differs << shift;
}

template <int Bits>
inline uint32_t in_place(uint32_t codes) {
  // Steps by inputs becomes inputs by steps: 2 x 4 codes of 4 bits, 4 x 4 of 2.
  if constexpr (Bits == 4) return swapped(swapped(codes, 0x0000ff00, 8), 0x00f000f0, 4);
  if constexpr (Bits == 2) return swapped(swapped(codes, 0x00cc00cc, 6), 0x0000f0f0, 12);
  return codes;
}

template <int Bits>
void pack_codes(const uint8_t* from, size_t row_bytes, int n_rows, int n_bytes, uint8_t* to) {
  for (int i = 0; i < n_bytes; i += kStep, to += kLine)
    for (int r = 0; r < n_rows; ++r) {
      const uint32_t made = in_place<Bits>(word(from + r * row_bytes + i));
      std::memcpy(to + kStep * r, &made, sizeof made);
    }
}

// Eight steps of 3 bits: 12 bytes there, and three lines here.
template <>
void pack_codes<3>(const uint8_t* from, size_t row_bytes, int n_rows, int n_bytes, uint8_t* to) {
  for (int i = 0; i < n_bytes; i += 3 * kStep, to += 3 * kLine)
    for (int r = 0; r < n_rows; ++r) {
      const uint8_t* at = from + r * row_bytes + i;
      uint32_t made[3] = {};
      for (int step = 0; step < 8; ++step) {
        // Four codes of 12 bits, then each in a byte.
        const uint32_t two = at[step / 2 * 3 + step % 2] | at[step / 2 * 3 + step % 2 + 1] << 8;
        const uint32_t codes = two >> step % 2 * 4 & 0xfff;
        const uint32_t pairs = (codes & 0x3f) | (codes & 0xfc0) << 10;
        const uint32_t bytes = (pairs | pairs << 5) & 0x07070707;
        made[step / 4] |= (bytes & 0x03030303) << step % 4 * 2;
        made[2] |= (bytes >> 2 & 0x01010101) << step;
      }
      for (int line = 0; line < 3; ++line)
        std::memcpy(to + line * kLine + kStep * r, &made[line], sizeof made[line]);
    }
}

void pack_codes(const uint8_t* from, size_t row_bytes, int n_rows, const Format& format,
                uint8_t* to) {
  const int n_bytes = format.group * format.bits / 8;
  switch (format.bits) {
    case 2: return pack_codes<2>(from, row_bytes, n_rows, n_bytes, to);
    case 3: return pack_codes<3>(from, row_bytes, n_rows, n_bytes, to);
    case 4: return pack_codes<4>(from, row_bytes, n_rows, n_bytes, to);
    default: return pack_codes<8>(from, row_bytes, n_rows, n_bytes, to);
  }
}

}  // namespace

void pack(const Stored& from, const Packed& shape, uint8_t* to, int begin, int end) {
  const Format& format = shape.format;
  const int code_bytes = format.group * format.bits / 8;
  const size_t row_bytes = static_cast<size_t>(shape.n_groups) * code_bytes;
  const size_t zero_bytes = (static_cast<size_t>(shape.n_groups) * format.bits + 7) / 8;
  for (int tile = begin; tile < end; ++tile) {
    uint8_t* block = to + tile * shape.tile_bytes();
    const size_t first = static_cast<size_t>(tile) * kRows;
    const int n_rows = std::min(kRows, shape.n_rows - tile * kRows);
    if (n_rows < kRows) std::memset(block, 0, shape.tile_bytes());
    for (int g = 0; g < shape.n_groups; ++g, block += format.block_bytes()) {
      const uint8_t* codes = from.codes + first * row_bytes + static_cast<size_t>(g) * code_bytes;
      pack_codes(codes, row_bytes, n_rows, format, block);
      uint8_t* scales = block + format.code_bytes();
      for (int r = 0; r < n_rows; ++r)
        std::memcpy(scales + 2 * r, from.scales + (first + r) * shape.n_groups + g, 2);
      if (format.symmetric) continue;
      uint8_t* zeros = scales + 2 * kRows;
      for (int r = 0; r < n_rows; ++r)
        zeros[r] = static_cast<uint8_t>(
            stream_code(from.zeros + (first + r) * zero_bytes, format.bits, g));
    }
  }
}

void unpack_row(const Packed& from, int row, float* to) {
  const Format& format = from.format;
  const int r = row % kRows;
  const uint8_t* block = from.tile(row / kRows);
  for (int g = 0; g < from.n_groups; ++g, block += format.block_bytes()) {
    uint16_t half;
    std::memcpy(&half, block + format.code_bytes() + 2 * r, 2);
    const float scale = to_float(half);
    const int zero =
        format.symmetric ? format.middle() : block[format.code_bytes() + 2 * kRows + r];
    for (int i = 0; i < format.group && g * format.group + i < from.n_inputs; ++i) {
      const Place at = place(format.bits, r, i);
      int code = block[at.byte] >> at.shift & ((1 << (format.bits == 3 ? 2 : format.bits)) - 1);
      if (format.bits == 3) code |= (block[at.upper] >> at.upper_shift & 1) << 2;
      to[g * format.group + i] = scale * static_cast<float>(code - zero);
    }
  }
}

}  // namespace onhand
