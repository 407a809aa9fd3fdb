// The emulated GPU, as the kernels see it: the second bodies of the helpers in device.cuh.
//
// Every CUDA thread is a fiber. A block, or for a cooperative launch the whole grid, runs on one thread of the
// operating system, in an order that is a function of the seed alone.
#pragma once

#include <cmath> // the mathematical functions that CUDA declares without a header
#include <cstddef>
#include <cstdint>
#include <cstring>

using std::isfinite;

namespace emu {

// Kinds of call sites that the self-test removes.
enum class Site : int { BlockBarrier = 0, GridBarrier = 1, AsyncWait = 2, Mask = 3 };

// An asynchronous copy that has not landed yet.
struct PendingCopy {
  float *shared;
  const float *global;
  int elements;
  unsigned group;
};

constexpr int MAX_PENDING = 64;

struct Warp;
struct Block;

// One CUDA thread.
struct Fiber {
  int thread;
  int lane;
  Warp *warp;
  Block *block;
  void *stack_pointer;
  int waits_for;         // 0 nothing, 1 block, 2 warp, 3 grid
  unsigned wait_round;
  bool done;
  unsigned open_group;   // number of the copy group that is being filled
  int pending_count;
  PendingCopy pending[MAX_PENDING];
};

struct Barrier {
  unsigned arrived = 0;
  unsigned live = 0;
  unsigned round = 0;
};

struct Warp {
  Barrier barrier;
  double exchange[32];
  const unsigned *a[32];
  const unsigned *b[32];
};

struct Block {
  int index;
  Barrier barrier;
  float *shared;
};

// What the running launch looks like from a fiber.
struct Launch {
  Fiber *current = nullptr;
  int blocks = 0;
};

extern thread_local Launch launch;

inline int thread() { return launch.current->thread; }
inline int block() { return launch.current->block->index; }
inline int blocks() { return launch.blocks; }
inline float *shared() { return launch.current->block->shared; }

// Whether the self-test has removed this call site. Notes that the site exists.
bool removed(Site kind, const char *file, int line);

void block_barrier(const char *file, int line);
void grid_barrier(unsigned *counter, unsigned round, const char *file, int line);
void warp_barrier();
double shuffle_xor(double value, int mask);

void copy_async(float *shared, const float *global, int elements);
void copy_async_commit();
void copy_async_wait(unsigned pending, const char *file, int line);

void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);

inline unsigned bits(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float from_bits(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Round to 10 bits of mantissa, ties away from zero.
inline unsigned to_tf32(float value) {
  unsigned u = bits(value);
  if ((u & 0x7f800000u) != 0x7f800000u) u += 0x1000u;
  return u & 0xffffe000u;
}

// Round to bfloat16, ties to even.
inline unsigned to_bf16(float value) {
  const unsigned u = bits(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (u >> 16) | 0x40u;
  return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}

inline unsigned to_bf16x2(float low, float high) { return to_bf16(low) | to_bf16(high) << 16; }

} // namespace emu
