// Which instruction sets this processor and this system have.
#pragma once

#include <vector>

#include "kernels.h"

namespace onhand {

// The kernels that run here, the fastest first; never empty.
std::vector<const Kernels*> usable();

}  // namespace onhand
