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
};

extern const Kernels kPortable;
#if defined(__x86_64__) || defined(_M_X64)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kAmx;
#endif

}  // namespace onhand
