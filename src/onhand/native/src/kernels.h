// What differs between instruction sets, chosen at run time.
#pragma once

#include "model.h"

namespace onhand {

struct Kernels {
  const char* name;
  // Run one step of a model; rows of one conversation follow each other.
  void (*step)(const Model&, Workspace&, Pool&, const std::vector<Row>&);
  // Tiles `begin` to `end` of a matrix times rows of inputs: out[row * stride + output]; `scratch`
  // has kScratch bytes.
  void (*product)(const Packed&, const Inputs&, int rows, float* out, size_t stride, int begin,
                  int end, uint8_t* scratch);
  // The same of inputs in bf16, where there are fast products of those; else null. Rows up to the
  // next multiple of 16 are read and written.
  void (*bf16_product)(const Packed&, const Bf16Inputs&, int rows, float* out, size_t stride,
                       int begin, int end, uint8_t* scratch) = nullptr;
};

extern const Kernels kPortable;
// Defined where CMakeLists.txt compiles them.
extern const Kernels kAvx2;
extern const Kernels kAvx2Vnni;
extern const Kernels kAvx512;
extern const Kernels kAmx;
extern const Kernels kNeon;
extern const Kernels kNeonI8mm;

}  // namespace onhand
