// Which instruction sets this processor and this system have.
#include "processor.h"

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(_M_ARM64) || (defined(__aarch64__) && defined(_WIN32))
#include <windows.h>
#endif

namespace onhand {
namespace {

#if defined(__x86_64__) || defined(_M_X64)

struct Registers { uint32_t a, b, c, d; };

Registers cpuid(uint32_t leaf, uint32_t part) {
  Registers r{};
#if defined(_MSC_VER)
  int found[4];
  __cpuidex(found, static_cast<int>(leaf), static_cast<int>(part));
  r = {uint32_t(found[0]), uint32_t(found[1]), uint32_t(found[2]), uint32_t(found[3])};
#else
  __get_cpuid_count(leaf, part, &r.a, &r.b, &r.c, &r.d);
#endif
  return r;
}

// The registers that the system keeps for a process: of AVX 6, of AVX-512 0xe6.
uint64_t kept_registers() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
#endif
}

constexpr bool all(uint64_t value, uint64_t bits) { return (value & bits) == bits; }
constexpr uint32_t bit(int i) { return uint32_t{1} << i; }

#if defined(ONHAND_AMX)
// Tiles of bf16 and of int8, and what came to processors before those: vectors rounded to bf16, and
// bits moved within bytes (GFNI). Linux gives the registers of tiles to processes that ask for them.
bool has_tiles(const Registers& more) {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int kAskFor = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return all(more.d, bit(22) | bit(24) | bit(25)) && all(more.c, bit(8)) && more.a >= 1 &&
         all(cpuid(7, 1).a, bit(5)) && syscall(SYS_arch_prctl, kAskFor, kTileData) == 0;
#else
  static_cast<void>(more);
  return false;
#endif
}
#endif

// Intel's manual, volume 2, CPUID: leaves 1, 7.0 and 7.1.
std::vector<const Kernels*> fast() {
  std::vector<const Kernels*> found;
  const Registers first = cpuid(1, 0), more = cpuid(7, 0);
  constexpr uint32_t kFma = bit(12), kKept = bit(27), kAvx = bit(28), kF16c = bit(29);
  if (!all(first.c, kFma | kKept | kAvx | kF16c) || !all(kept_registers(), 6)) return found;
  constexpr uint32_t kAvx2Bit = bit(5), kF = bit(16), kDq = bit(17), kBw = bit(30), kVl = bit(31);
  if (!all(more.b, kAvx2Bit)) return found;
  if (all(more.b, kF | kDq | kBw | kVl) && all(more.c, bit(11)) && all(kept_registers(), 0xe6)) {
#if defined(ONHAND_AMX)
    if (has_tiles(more)) found.push_back(&kAmx);
#endif
#if defined(ONHAND_AVX512)
    found.push_back(&kAvx512);
#endif
  }
#if defined(ONHAND_AVX2_VNNI)
  if (more.a >= 1 && all(cpuid(7, 1).a, bit(4))) found.push_back(&kAvx2Vnni);
#endif
#if defined(ONHAND_AVX2)
  found.push_back(&kAvx2);
#endif
  return found;
}

#elif defined(__aarch64__) || defined(_M_ARM64)

struct Arm { bool dot, matrix; };

#if defined(__APPLE__)
bool has(const char* name) {
  int found = 0;
  size_t size = sizeof found;
  return sysctlbyname(name, &found, &size, nullptr, 0) == 0 && found != 0;
}
Arm arm() { return {has("hw.optional.arm.FEAT_DotProd"), has("hw.optional.arm.FEAT_I8MM")}; }
#elif defined(__linux__)
// Bits 20 of AT_HWCAP (asimddp) and 13 of AT_HWCAP2 (i8mm): arch/arm64/include/uapi/asm/hwcap.h.
Arm arm() { return {(getauxval(16) >> 20 & 1) != 0, (getauxval(26) >> 13 & 1) != 0}; }
#elif defined(_WIN32)
// PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE and PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE.
Arm arm() { return {IsProcessorFeaturePresent(43) != 0, IsProcessorFeaturePresent(66) != 0}; }
#else
Arm arm() { return {false, false}; }
#endif

std::vector<const Kernels*> fast() {
  std::vector<const Kernels*> found;
  const Arm has = arm();
#if defined(ONHAND_NEON_I8MM)
  if (has.dot && has.matrix) found.push_back(&kNeonI8mm);
#endif
#if defined(ONHAND_NEON)
  if (has.dot) found.push_back(&kNeon);
#endif
  return found;
}

#else

std::vector<const Kernels*> fast() { return {}; }

#endif

}  // namespace

std::vector<const Kernels*> usable() {
  std::vector<const Kernels*> found = fast();
  found.push_back(&kPortable);
  return found;
}

}  // namespace onhand
