#include "kernels.h"
#include "simd_amx.h"
#include "step.h"

namespace onhand {
const Kernels kAmx{"amx", step<amx::Simd>, product<amx::Simd>, product<amx::Simd>};
}  // namespace onhand
