#include "kernels.h"
#include "simd_neon_i8mm.h"
#include "step.h"

namespace onhand {
const Kernels kNeonI8mm{"neon-i8mm", step<neon_i8mm::Simd>, product<neon_i8mm::Simd>};
}  // namespace onhand
