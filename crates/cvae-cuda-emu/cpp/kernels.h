// The kernels that the emulated driver offers.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

struct Kernel {
  const char *name;
  std::vector<size_t> argument_sizes;
  std::function<void(void **)> call;
  size_t shared_limit = 48 * 1024;  // dynamic shared memory without cuFuncSetAttribute
};

const std::vector<Kernel> &kernel_table();
