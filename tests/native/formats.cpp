// Half precision, and matrices there and back.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "check.h"
#include "half.h"
#include "pack.h"

namespace check {
using onhand::Format;

float RandomMatrix::scale(int row, int group) const {
  return onhand::to_float(scales[size_t(row) * packed.n_groups + group]);
}

namespace {

// Codes one after the other, the lowest bit first; each row begins a byte.
std::vector<uint8_t> stream(const std::vector<int>& codes, int n_rows, int bits) {
  const size_t n = codes.size() / n_rows, row_bytes = (n * bits + 7) / 8;
  std::vector<uint8_t> made(row_bytes * n_rows);
  for (int r = 0; r < n_rows; ++r)
    for (size_t i = 0; i < n; ++i)
      for (int b = 0; b < bits; ++b) {
        const size_t at = i * bits + b;
        made[r * row_bytes + at / 8] |= (codes[r * n + i] >> b & 1) << at % 8;
      }
  return made;
}

void check_halves() {
  for (uint32_t half = 0; half < 65536; ++half) {
    const float value = onhand::to_float(static_cast<uint16_t>(half));
    const bool is_nan = (half & 0x7fff) > 0x7c00;
    expect(is_nan == std::isnan(value), "half %x: %g", half, value);
    expect(is_nan || onhand::to_half(value) == half, "half %x comes back as another", half);
  }
  // Between two halves: the nearer, the even one in the middle.
  for (uint32_t half = 0; half < 0x7bff; ++half) {
    const float low = onhand::to_float(static_cast<uint16_t>(half));
    const float high = onhand::to_float(static_cast<uint16_t>(half + 1));
    const float middle = (low + high) / 2;
    expect(onhand::to_half(middle) == half + half % 2, "the middle above half %x", half);
    expect(onhand::to_half(std::nextafter(middle, 0.0f)) == half, "under the middle, %x", half);
    expect(onhand::to_half(std::nextafter(middle, 1e9f)) == half + 1, "above it, %x", half);
  }
}

void check_round_trip(const Format& format, int n_rows, int n_inputs, Random& random) {
  const RandomMatrix w = random_matrix(format, n_rows, n_inputs, 1, false, random);
  std::vector<float> row(n_inputs);
  for (int r = 0; r < n_rows; ++r) {
    onhand::unpack_row(w.packed, r, row.data());
    for (int i = 0; i < n_inputs; ++i) {
      const int g = i / format.group;
      const float value = w.scale(r, g) * static_cast<float>(w.code(r, i) - w.zero(r, g));
      expect(row[i] == value, "%d bits, groups of %d: (%d, %d) is %g, not %g", format.bits,
             format.group, r, i, row[i], value);
    }
  }
}

// Pack it anew, its rows followed by empty ones up to `n_rows`.
std::vector<uint8_t> packed_again(const RandomMatrix& w, int n_rows, uint8_t filler) {
  const Format& format = w.packed.format;
  std::vector<uint8_t> codes = stream(w.codes, w.packed.n_rows, format.bits);
  std::vector<uint8_t> zeros = stream(w.zeros, w.packed.n_rows, format.bits);
  std::vector<uint16_t> scales = w.scales;
  codes.insert(codes.begin(), filler);  // files put codes at any address
  codes.resize(1 + (codes.size() - 1) / w.packed.n_rows * n_rows);
  zeros.resize(zeros.size() / w.packed.n_rows * n_rows);
  scales.resize(scales.size() / w.packed.n_rows * n_rows);
  const onhand::Packed shape = onhand::layout(format, n_rows, w.packed.n_inputs);
  std::vector<uint8_t> made(shape.bytes(), filler);
  const onhand::Stored from{format,           n_rows,        w.packed.n_inputs,
                            codes.data() + 1, scales.data(), zeros.data()};
  const int middle = shape.n_tiles / 2;  // as two threads would
  onhand::pack(from, shape, made.data(), middle, shape.n_tiles);
  expect(std::all_of(made.begin(), made.begin() + middle * shape.tile_bytes(),
                     [&](uint8_t byte) { return byte == filler; }),
         "%d bits, groups of %d: a tile of another thread", format.bits, format.group);
  onhand::pack(from, shape, made.data(), 0, middle);
  return made;
}

// Every byte is written, and those of rows that only fill the last tile are zeros.
void check_bytes(const Format& format, int n_rows, Random& random) {
  const RandomMatrix w = random_matrix(format, n_rows, 2 * format.group + 1, 1, false, random);
  const int whole = w.packed.n_tiles * onhand::kRows;
  for (const int n : {n_rows, whole})
    expect(packed_again(w, n, 0x55) == w.memory, "%d bits, groups of %d: %d rows as %d",
           format.bits, format.group, n_rows, n);
}

}  // namespace

RandomMatrix random_matrix(const Format& format, int n_rows, int n_inputs, float scale, bool equal,
                           Random& random) {
  RandomMatrix made;
  made.packed = onhand::layout(format, n_rows, n_inputs);
  const int n_groups = made.packed.n_groups, most = (1 << format.bits) - 1;
  made.codes.resize(size_t(n_rows) * made.width());
  for (size_t i = 0; i < made.codes.size(); ++i) {
    const size_t row = i / made.width();
    made.codes[i] = row == 0 ? most : row == 1 ? 0 : random.between(0, most);
  }
  made.zeros.resize(size_t(n_rows) * n_groups, format.middle());
  if (!format.symmetric)
    for (int& zero : made.zeros) zero = random.between(0, most);
  for (int i = 0; i < n_rows * n_groups; ++i)
    made.scales.push_back(onhand::to_half(equal ? scale : random.real(scale / 2, scale)));
  const std::vector<uint8_t> codes = stream(made.codes, n_rows, format.bits);
  const std::vector<uint8_t> zeros = stream(made.zeros, n_rows, format.bits);
  made.memory.resize(made.packed.bytes(), 0xff);
  const onhand::Stored from{format,       n_rows, n_inputs, codes.data(), made.scales.data(),
                            zeros.data()};
  onhand::pack(from, made.packed, made.memory.data(), 0, made.packed.n_tiles);
  made.packed.data = made.memory.data();
  return made;
}

std::vector<Format> formats() {
  std::vector<Format> all;
  for (int bits : {2, 3, 4, 8})
    for (int group : {32, 64, 128})
      for (bool symmetric : {true, false}) all.push_back({bits, group, symmetric});
  return all;
}

void check_formats() {
  Random random(1);
  check_halves();
  for (const Format& format : formats())
    for (int n_rows : {1, 16, 37})
      for (int n_inputs : {1, format.group, 3 * format.group - 5})
        check_round_trip(format, n_rows, n_inputs, random);
  for (const Format& format : formats())
    for (int n_rows : {1, 15, 37, 64}) check_bytes(format, n_rows, random);
}

}  // namespace check
