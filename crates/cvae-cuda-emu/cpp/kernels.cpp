// The kernels of cvae-cuda, compiled for the emulated GPU, and the table through which the driver finds them.
#include "kernels.h"

#include "kernels.cu"

#include <tuple>
#include <utility>

namespace {

// Reads a kernel's arguments through the driver's array of pointers, with the types of the kernel's signature.
template <class... Args, size_t... I> void call(void (*kernel)(Args...), void **args, std::index_sequence<I...>) {
  kernel(*static_cast<Args *>(args[I])...);
}

template <class... Args> Kernel entry(const char *name, void (*kernel)(Args...)) {
  return {name, {sizeof(Args)...}, [kernel](void **args) { call(kernel, args, std::index_sequence_for<Args...>{}); }};
}

} // namespace

const std::vector<Kernel> &kernel_table() {
  static const std::vector<Kernel> table = {
      entry("phase_f32", phase_f32),   entry("phase_tf32", phase_tf32), entry("phase_bf16", phase_bf16),
      entry("steps_f32", steps_f32),   entry("steps_tf32", steps_tf32), entry("steps_bf16", steps_bf16),
  };
  return table;
}
