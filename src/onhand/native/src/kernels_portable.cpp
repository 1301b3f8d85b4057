#include "kernels.h"
#include "step.h"
#include "simd_portable.h"

namespace onhand {
namespace {
void step(const Model& model, Workspace& work, Pool& pool, const std::vector<Row>& rows) {
  Step<portable::Simd>(model, work, pool, rows).run();
}
}  // namespace

extern const Kernels kPortable;
const Kernels kPortable{"portable", step, product<portable::Simd>};
}  // namespace onhand
