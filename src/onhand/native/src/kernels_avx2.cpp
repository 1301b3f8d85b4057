#include "kernels.h"
#include "step.h"
#include "simd_avx2.h"

namespace onhand {
namespace {
void step(const Model& model, Workspace& work, Pool& pool, const std::vector<Row>& rows) {
  Step<avx2::Simd>(model, work, pool, rows).run();
}
}  // namespace

extern const Kernels kAvx2;
const Kernels kAvx2{"avx2", step, product<avx2::Simd>};
}  // namespace onhand
