// Launching kernels on the emulated GPU.
#pragma once

#include <cstdint>
#include <functional>

namespace emu {

// How the emulated GPU behaves; set from Rust before use.
struct Options {
  uint64_t seed = 0;             // order of blocks, warps and lanes; bit 0: copies land at once, else as late as allowed
  uint64_t memory = 4ull << 30;  // bytes of device memory
  uint64_t multiprocessors = 4;
  uint64_t device = 1;           // 0: a driver without a GPU
  uint64_t driver_version = 13000;
  uint64_t fail_launch = 0;      // the launch with this number, counted from 1, loses the device
  uint64_t early_streams = 0;    // 1: stream operations run when issued, else when somebody waits for them
  uint64_t fail_allocation = 0;  // the allocation of device memory with this number, counted from 1, finds no memory
};

extern Options options;

struct LaunchShape {
  unsigned blocks;
  unsigned threads;
  size_t shared_bytes;
  bool cooperative;
};

enum class Outcome { Done, IllegalAddress, Deadlock, BadBarrier };

// Runs one kernel to its end.
Outcome run(const LaunchShape &shape, const std::function<void()> &body, uint64_t launch_number);

// Call sites seen so far.
size_t site_count();
bool site_at(size_t index, int *kind, const char **file, int *line);
// Removes one site, or none when `index` is out of range.
void remove_site(size_t index);

} // namespace emu
