#include "kernels.h"
#include "step.h"
#include "simd_avx512.h"

namespace onhand {
namespace {
void step(const Model& model, Workspace& work, Pool& pool, const std::vector<Row>& rows) {
  Step<avx512::Simd>(model, work, pool, rows).run();
}
}  // namespace

extern const Kernels kAvx512;
const Kernels kAvx512{"avx512", step, product<avx512::Simd>};
}  // namespace onhand
