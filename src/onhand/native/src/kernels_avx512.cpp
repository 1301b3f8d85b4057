#include "kernels.h"
#include "simd_avx512.h"
#include "step.h"

namespace onhand {
const Kernels kAvx512{"avx512", step<avx512::Simd>, product<avx512::Simd>};
}  // namespace onhand
