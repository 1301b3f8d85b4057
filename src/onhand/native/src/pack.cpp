#include "pack.h"

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

// `Bits` is known when this is compiled, so that shifts and places cost next to nothing.
template <int Bits>
void pack_codes(const uint8_t* stream, int group, int row, uint8_t* block) {
  for (int i = 0; i < group; ++i) {
    const int code = stream_code(stream, Bits, i);
    const Place at = place(Bits, row, i);
    if constexpr (Bits == 3) {
      block[at.byte] |= static_cast<uint8_t>((code & 3) << at.shift);
      block[at.upper] |= static_cast<uint8_t>((code >> 2) << at.upper_shift);
    } else {
      block[at.byte] |= static_cast<uint8_t>(code << at.shift);
    }
  }
}

void pack_codes(const uint8_t* stream, const Format& format, int row, uint8_t* block) {
  switch (format.bits) {
    case 2: return pack_codes<2>(stream, format.group, row, block);
    case 3: return pack_codes<3>(stream, format.group, row, block);
    case 4: return pack_codes<4>(stream, format.group, row, block);
    default: return pack_codes<8>(stream, format.group, row, block);
  }
}

}  // namespace

void pack(const Stored& from, const Packed& shape, uint8_t* to, int begin, int end) {
  const Format& format = shape.format;
  const int code_bytes = format.group * format.bits / 8;
  const int zero_bytes = (shape.n_groups * format.bits + 7) / 8;
  for (int tile = begin; tile < end; ++tile) {
    uint8_t* block = to + tile * shape.tile_bytes();
    for (int g = 0; g < shape.n_groups; ++g, block += format.block_bytes()) {
      std::memset(block, 0, format.block_bytes());
      for (int r = 0; r < kRows && tile * kRows + r < shape.n_rows; ++r) {
        const size_t at = static_cast<size_t>(tile * kRows + r) * shape.n_groups + g;
        pack_codes(from.codes + at * code_bytes, format, r, block);
        std::memcpy(block + format.code_bytes() + 2 * r, from.scales + at, 2);
        if (!format.symmetric) {
          const uint8_t* zeros =
              from.zeros + static_cast<size_t>(tile * kRows + r) * zero_bytes;
          block[format.code_bytes() + 2 * kRows + r] =
              static_cast<uint8_t>(stream_code(zeros, format.bits, g));
        }
      }
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
