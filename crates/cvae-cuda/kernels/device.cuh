// Every hardware instruction that the kernels use, behind one helper each.
//
// A helper has two bodies: the real one, and one for the emulated driver (crate cvae-cuda-emu), which compiles
// these same files with a C++ compiler and runs every CUDA thread as a fiber. A kernel calls nothing else that
// is specific to a GPU. No CUDA header is included.
//
// In the emulated body, barriers, waits and bounds checks carry their call site: the emulator's self-test removes
// them one at a time and expects the test suite to notice.
#pragma once

#ifdef __CUDACC__
#define DEVICE __device__ __forceinline__
#define DEVICE_CALL __device__ __noinline__
#define KERNEL(blocks) extern "C" __global__ void __launch_bounds__(256, blocks)
#define SITE
#define SITE_ONLY
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")
#else
#include "emulator.h"
#define DEVICE inline
#define DEVICE_CALL inline
#define KERNEL(blocks) extern "C" void
#define SITE , const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SITE_ONLY const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define UNROLL
#define NO_UNROLL
#endif

// Threads of a block, everywhere.
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32;

// ---- Position ----

DEVICE int thread_index() {
#ifdef __CUDACC__
  return (int)threadIdx.x;
#else
  return emu::thread();
#endif
}

DEVICE int block_index() {
#ifdef __CUDACC__
  return (int)blockIdx.x;
#else
  return emu::block();
#endif
}

DEVICE int grid_size() {
#ifdef __CUDACC__
  return (int)gridDim.x;
#else
  return emu::blocks();
#endif
}

// The block's dynamic shared memory.
DEVICE float *shared_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(16) float shared[];
  return shared;
#else
  return emu::shared();
#endif
}

// ---- Bounds ----

// Whether `index` lies below `limit`: the mask of every ragged edge.
DEVICE bool within(int index, int limit SITE) {
#ifdef __CUDACC__
  return index < limit;
#else
  return index < limit || emu::removed(emu::Site::Mask, file, line);
#endif
}

// How many of the four elements that start at `index` lie below `limit`.
DEVICE int within4(int index, int limit SITE) {
#ifdef __CUDACC__
  const int left = limit - index;
#else
  const int left = emu::removed(emu::Site::Mask, file, line) ? 4 : limit - index;
#endif
  return left < 0 ? 0 : left > 4 ? 4 : left;
}

// ---- Barriers ----

// Waits for every thread of the block, and makes its writes visible to the block.
DEVICE void block_barrier(SITE_ONLY) {
#ifdef __CUDACC__
  __syncthreads();
#else
  emu::block_barrier(file, line);
#endif
}

// Waits for every block of a cooperative launch, and makes its writes visible to the grid. `counter` starts at 0;
// `round` counts the barriers of the launch from 1.
DEVICE void grid_barrier(unsigned *counter, unsigned round SITE) {
#ifdef __CUDACC__
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
    const unsigned all = gridDim.x * round;
    unsigned arrived;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(arrived) : "l"(counter) : "memory");
    } while ((int)(arrived - all) < 0);
    __threadfence();
  }
  __syncthreads();
#else
  emu::grid_barrier(counter, round, file, line);
#endif
}

// The value of the lane whose number differs from the caller's by `mask`.
DEVICE double shuffle_xor(double value, int mask) {
#ifdef __CUDACC__
  return __shfl_xor_sync(0xffffffffu, value, mask);
#else
  return emu::shuffle_xor(value, mask);
#endif
}

// ---- Memory ----

// Reads memory that another block may have written in this launch: through L2, never from a stale L1 line.
DEVICE float load(const float *address) {
#ifdef __CUDACC__
  return __ldcg(address);
#else
  return *address;
#endif
}

DEVICE double load(const double *address) {
#ifdef __CUDACC__
  return __ldcg(address);
#else
  return *address;
#endif
}

// Copies `elements` (0 to 4) floats to 16 bytes of shared memory without waiting, and zeroes the rest. Both
// addresses are multiples of 16 bytes.
DEVICE void copy_async(float *shared, const float *global, int elements) {
#ifdef __CUDACC__
  const unsigned to = (unsigned)__cvta_generic_to_shared(shared);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(4 * elements) : "memory");
#else
  emu::copy_async(shared, global, elements);
#endif
}

// Closes a group of copies.
DEVICE void copy_async_commit() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  emu::copy_async_commit();
#endif
}

// Waits until at most `PENDING` of the thread's groups are under way.
template <int PENDING> DEVICE void copy_async_wait(SITE_ONLY) {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#else
  emu::copy_async_wait(PENDING, file, line);
#endif
}

// ---- Arithmetic ----

// a·b + c with one rounding on a GPU; the emulator rounds twice.
DEVICE float fused(float a, float b, float c) {
#ifdef __CUDACC__
  return fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// Product, sum and root that the compiler may not contract, for results that must equal core's bit for bit.
DEVICE float exact_mul(float a, float b) {
#ifdef __CUDACC__
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

DEVICE float exact_add(float a, float b) {
#ifdef __CUDACC__
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

DEVICE float exact_sqrt(float a) {
#ifdef __CUDACC__
  return __fsqrt_rn(a);
#else
  return sqrtf(a);
#endif
}

DEVICE unsigned float_bits(float value) {
#ifdef __CUDACC__
  return __float_as_uint(value);
#else
  return emu::bits(value);
#endif
}

DEVICE float bits_float(unsigned bits) {
#ifdef __CUDACC__
  return __uint_as_float(bits);
#else
  return emu::from_bits(bits);
#endif
}

// ---- Tensor cores ----

// Rounds to TF32's 10 bits of mantissa, ties away from zero.
DEVICE unsigned to_tf32(float value) {
#ifdef __CUDACC__
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
#else
  return emu::to_tf32(value);
#endif
}

// Rounds two values to bfloat16, ties to even; `low` takes the lower half.
DEVICE unsigned to_bf16x2(float low, float high) {
#ifdef __CUDACC__
  unsigned bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  return emu::to_bf16x2(low, high);
#endif
}

// d += a·b of a warp, 16×8 += 16×8 · 8×8, TF32 operands. With g = lane / 4 and t = lane % 4:
// a = {(g, t), (g+8, t), (g, t+4), (g+8, t+4)}, b = {(t, g), (t+4, g)}, d = {(g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1)}.
DEVICE void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef __CUDACC__
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  emu::mma_tf32(d, a, b);
#endif
}

// d += a·b of a warp, 16×8 += 16×16 · 16×8, bfloat16 operands in pairs of neighbouring depth:
// a = {(g, 2t), (g+8, 2t), (g, 2t+8), (g+8, 2t+8)}, b = {(2t, g), (2t+8, g)}, d as in mma_tf32.
DEVICE void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef __CUDACC__
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  emu::mma_bf16(d, a, b);
#endif
}
