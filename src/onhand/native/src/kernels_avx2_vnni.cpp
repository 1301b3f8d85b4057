#include "kernels.h"
#include "simd_avx2_vnni.h"
#include "step.h"

namespace onhand {
const Kernels kAvx2Vnni{"avx2-vnni", step<avx2_vnni::Simd>, product<avx2_vnni::Simd>};
}  // namespace onhand
