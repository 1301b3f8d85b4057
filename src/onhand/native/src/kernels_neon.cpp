#include "kernels.h"
#include "simd_neon.h"
#include "step.h"

namespace onhand {
const Kernels kNeon{"neon", step<neon::Simd>, product<neon::Simd>};
}  // namespace onhand
