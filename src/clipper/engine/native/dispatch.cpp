// The processor's features in, the kernels it can run out.
#include "dispatch.hpp"

namespace clipper {

#if CLIPPER_X86
namespace avx512 {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace sse2 {
extern const Kernels kernels;
}

std::vector<const Kernels*> supported_kernels() {
  std::vector<const Kernels*> found;
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512cd") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx2 && has_avx512) found.push_back(&avx512::kernels);
  if (has_avx2) found.push_back(&avx2::kernels);
  found.push_back(&sse2::kernels);
  return found;
}
#else
namespace generic {
extern const Kernels kernels;
}

std::vector<const Kernels*> supported_kernels() { return {&generic::kernels}; }
#endif

const Kernels* find_kernels(const std::string& name) {
  for (const Kernels* kernels : supported_kernels())
    if (name == kernels->name) return kernels;
  return nullptr;
}

}  // namespace clipper
