#include "kernels.h"
#include "simd_avx2.h"
#include "step.h"

namespace onhand {
const Kernels kAvx2{"avx2", step<avx2::Simd>, product<avx2::Simd>};
}  // namespace onhand
