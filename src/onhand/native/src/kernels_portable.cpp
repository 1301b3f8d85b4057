#include "kernels.h"
#include "simd_portable.h"
#include "step.h"

namespace onhand {
const Kernels kPortable{"portable", step<portable::Simd>, product<portable::Simd>};
}  // namespace onhand
