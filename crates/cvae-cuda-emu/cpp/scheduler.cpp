// The emulated GPU: fibers, barriers, asynchronous copies, tensor cores.
//
// The scheduler is depth first. A warp runs until all its lanes wait for the block or the grid, a block until all
// its warps wait for the grid: the largest skew that the program's own barriers allow, so that a missing barrier
// shows. Blocks, warps and lanes are shuffled by the seed.
#include "emulator.h"
#include "scheduler.h"

#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <mutex>
#include <random>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace emu {

thread_local Launch launch;
Options options;

namespace {

constexpr size_t STACK_BYTES = 64 * 1024;

struct Grid {
  Barrier barrier;
  const std::function<void()> *body = nullptr;
  bool copies_land_at_once = false;
  bool bad_barrier = false;
};

thread_local Grid grid;
thread_local sigjmp_buf escape;
thread_local volatile sig_atomic_t running = 0;

// ---- Switching between the scheduler and a fiber ----

#if defined(__x86_64__)
thread_local void *scheduler_stack;

// Saves the callee-saved registers and swaps stacks (System V ABI).
asm(R"(
.text
.local emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch,.-emu_switch
)");
extern "C" void emu_switch(void **save, void *to);

void prepare(Fiber &fiber, char *stack, void (*entry)()) {
  void **top = reinterpret_cast<void **>(stack + STACK_BYTES);
  *--top = nullptr;
  *--top = reinterpret_cast<void *>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  fiber.stack_pointer = top;
}
void enter(Fiber &fiber) { emu_switch(&scheduler_stack, fiber.stack_pointer); }
void leave() { emu_switch(&launch.current->stack_pointer, scheduler_stack); }
#else
thread_local ucontext_t scheduler_context;
thread_local std::vector<ucontext_t> contexts;

void prepare(Fiber &fiber, char *stack, void (*entry)()) {
  auto *context = new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = STACK_BYTES;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  fiber.stack_pointer = context;
}
void enter(Fiber &fiber) { swapcontext(&scheduler_context, static_cast<ucontext_t *>(fiber.stack_pointer)); }
void leave() { swapcontext(static_cast<ucontext_t *>(launch.current->stack_pointer), &scheduler_context); }
#endif

// ---- Barriers ----

void open(Barrier &barrier) {
  barrier.arrived = 0;
  ++barrier.round;
}

void wait(Barrier &barrier, int kind) {
  Fiber &fiber = *launch.current;
  const unsigned round = barrier.round;
  if (++barrier.arrived == barrier.live) return open(barrier);
  fiber.waits_for = kind;
  fiber.wait_round = round;
  while (barrier.round == round) leave();
  fiber.waits_for = 0;
}

// A finished thread no longer takes part in barriers.
void retire(Barrier &barrier) {
  --barrier.live;
  if (barrier.live && barrier.arrived == barrier.live) open(barrier);
}

bool ready(const Fiber &fiber) {
  switch (fiber.waits_for) {
  case 1: return fiber.block->barrier.round != fiber.wait_round;
  case 2: return fiber.warp->barrier.round != fiber.wait_round;
  case 3: return grid.barrier.round != fiber.wait_round;
  default: return true;
  }
}

void fiber_main() {
  (*grid.body)();
  Fiber &fiber = *launch.current;
  fiber.done = true;
  retire(fiber.warp->barrier);
  retire(fiber.block->barrier);
  retire(grid.barrier);
  for (;;) leave();
}

// ---- Faults ----

struct sigaction previous_action[2];

void on_fault(int signal, siginfo_t *info, void *context) {
  if (running) siglongjmp(escape, 1);
  const struct sigaction &previous = previous_action[signal == SIGBUS];
  if (previous.sa_flags & SA_SIGINFO)
    previous.sa_sigaction(signal, info, context);
  else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN)
    previous.sa_handler(signal);
  else {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

void catch_faults() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &previous_action[0]);
    sigaction(SIGBUS, &action, &previous_action[1]);
  });
}

// ---- Call sites ----

struct SiteInfo {
  Site kind;
  const char *file;
  int line;
};

std::mutex sites_lock;
std::vector<SiteInfo> sites;
unsigned char seen[4096];
SiteInfo removed_site = {Site::Mask, nullptr, 0};

unsigned slot(Site kind, const char *file, int line) {
  return (static_cast<unsigned>(reinterpret_cast<uintptr_t>(file)) * 31u + static_cast<unsigned>(line) * 4u +
          static_cast<unsigned>(kind)) % sizeof seen;
}

void note(Site kind, const char *file, int line) {
  std::lock_guard<std::mutex> guard(sites_lock);
  for (const SiteInfo &site : sites)
    if (site.kind == kind && site.line == line && std::strcmp(site.file, file) == 0) {
      seen[slot(kind, file, line)] = 1;
      return;
    }
  sites.push_back({kind, file, line});
}

// ---- Shared memory ----

// Pages for the blocks' shared memory, each block's array ending at an inaccessible page.
class SharedMemory {
public:
  SharedMemory(size_t blocks, size_t bytes) {
    page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    body_ = (bytes + page_ - 1) / page_ * page_;
    bytes_ = (bytes + 15) / 16 * 16;
    total_ = blocks * (body_ + page_);
    base_ = static_cast<char *>(mmap(nullptr, total_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (size_t i = 0; i < blocks; ++i) mprotect(base_ + i * (body_ + page_) + body_, page_, PROT_NONE);
  }
  ~SharedMemory() { munmap(base_, total_); }
  SharedMemory(const SharedMemory &) = delete;
  SharedMemory &operator=(const SharedMemory &) = delete;

  // A block's array, filled with NaN.
  float *poisoned(size_t block) {
    char *start = base_ + block * (body_ + page_) + body_ - bytes_;
    std::memset(start, 0xFF, bytes_);
    return reinterpret_cast<float *>(start);
  }

private:
  char *base_;
  size_t page_, body_, bytes_, total_;
};

// ---- Running ----

struct Scheduler {
  std::vector<Block> blocks;
  std::vector<Warp> warps;
  std::vector<Fiber> fibers;
  std::mt19937_64 random;
  unsigned threads;
  unsigned warps_per_block;
  size_t alive;

  template <class Order> void shuffle(Order &order) {
    if (options.seed) std::shuffle(order.begin(), order.end(), random);
  }

  // Runs the ready lanes of a warp once each; whether any ran.
  bool run_lanes(unsigned block, unsigned warp, std::vector<unsigned> &lanes) {
    bool progress = false;
    shuffle(lanes);
    for (unsigned lane : lanes) {
      const unsigned thread = warp * 32 + lane;
      if (thread >= threads) continue;
      Fiber &fiber = fibers[block * threads + thread];
      if (fiber.done || !ready(fiber)) continue;
      progress = true;
      launch.current = &fiber;
      enter(fiber);
      if (fiber.done) --alive;
    }
    return progress;
  }

  bool run_block(unsigned block, std::vector<unsigned> &warp_order, std::vector<unsigned> &lanes) {
    bool any = false;
    for (bool progress = true; progress;) {
      progress = false;
      shuffle(warp_order);
      for (unsigned warp : warp_order)
        while (run_lanes(block, warp, lanes)) any = progress = true;
    }
    return any;
  }

  // Runs all fibers; false on a deadlock.
  bool run_all() {
    std::vector<unsigned> block_order(blocks.size()), warp_order(warps_per_block), lanes(32);
    for (auto *order : {&block_order, &warp_order, &lanes})
      for (unsigned i = 0; i < order->size(); ++i) (*order)[i] = i;
    while (alive) {
      bool any = false;
      shuffle(block_order);
      for (unsigned block : block_order) any |= run_block(block, warp_order, lanes);
      if (!any) return false;
    }
    return true;
  }
};

char *stack_pool(size_t bytes) {
  static thread_local char *pool = nullptr;
  static thread_local size_t size = 0;
  if (bytes > size) {
    if (pool) munmap(pool, size);
    void *pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    pool = pages == MAP_FAILED ? nullptr : static_cast<char *>(pages);
    size = pool ? bytes : 0;
  }
  return pool;
}

// Prepares the fibers of the blocks from `first`.
void prepare_blocks(Scheduler &s, unsigned first, SharedMemory &shared, char *stacks) {
  s.alive = s.fibers.size();
  grid.barrier = Barrier();
  grid.barrier.live = static_cast<unsigned>(s.fibers.size());
  for (unsigned b = 0; b < s.blocks.size(); ++b) {
    Block &block = s.blocks[b];
    block.index = static_cast<int>(first + b);
    block.barrier = Barrier();
    block.barrier.live = s.threads;
    block.shared = shared.poisoned(b);
    for (unsigned w = 0; w < s.warps_per_block; ++w) s.warps[b * s.warps_per_block + w].barrier = Barrier();
    for (unsigned t = 0; t < s.threads; ++t) {
      Fiber &fiber = s.fibers[b * s.threads + t];
      fiber.thread = static_cast<int>(t);
      fiber.lane = static_cast<int>(t % 32);
      fiber.block = &block;
      fiber.warp = &s.warps[b * s.warps_per_block + t / 32];
      ++fiber.warp->barrier.live;
      fiber.waits_for = 0;
      fiber.done = false;
      fiber.open_group = 0;
      fiber.pending_count = 0;
      prepare(fiber, stacks + (b * s.threads + t) * STACK_BYTES, fiber_main);
    }
  }
}

} // namespace

Outcome run(const LaunchShape &shape, const std::function<void()> &body, uint64_t launch_number) {
  catch_faults();
  const unsigned together = shape.cooperative ? shape.blocks : 1;
  char *stacks = stack_pool(static_cast<size_t>(together) * shape.threads * STACK_BYTES);
  if (!stacks) return Outcome::Deadlock;
  SharedMemory shared(together, std::max<size_t>(shape.shared_bytes, 16));
  Scheduler s;
  s.threads = shape.threads;
  s.warps_per_block = (shape.threads + 31) / 32;
  s.blocks.resize(together);
  s.warps.resize(together * s.warps_per_block);
  s.fibers.resize(together * shape.threads);
  s.random.seed(options.seed * 0x9E3779B97F4A7C15ull + launch_number);
  grid = Grid();
  grid.body = &body;
  grid.copies_land_at_once = options.seed & 1;
  launch.blocks = static_cast<int>(shape.blocks);

  std::vector<unsigned> order(shape.blocks / together);
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i * together;
  s.shuffle(order);
  volatile Outcome outcome = Outcome::Done;
  if (sigsetjmp(escape, 1) == 0) {
    running = 1;
    for (unsigned first : order) {
      prepare_blocks(s, first, shared, stacks);
      if (!s.run_all()) outcome = Outcome::Deadlock;
      if (grid.bad_barrier) outcome = Outcome::BadBarrier;
      if (outcome != Outcome::Done) break;
    }
  } else {
    outcome = Outcome::IllegalAddress;
  }
  running = 0;
  launch.current = nullptr;
#if !defined(__x86_64__)
  for (Fiber &fiber : s.fibers) delete static_cast<ucontext_t *>(fiber.stack_pointer);
#endif
  return outcome;
}

// ---- The helpers' bodies ----

bool removed(Site kind, const char *file, int line) {
  if (!seen[slot(kind, file, line)]) note(kind, file, line);
  return removed_site.file && removed_site.line == line && removed_site.kind == kind &&
         std::strcmp(removed_site.file, file) == 0;
}

void warp_barrier() { wait(launch.current->warp->barrier, 2); }

void block_barrier(const char *file, int line) {
  if (!removed(Site::BlockBarrier, file, line)) wait(launch.current->block->barrier, 1);
}

void grid_barrier(unsigned *counter, unsigned round, const char *file, int line) {
  if (removed(Site::GridBarrier, file, line)) return;
  // One arrival per block, as on the device: a counter that was not reset shows.
  if (thread() == 0) ++*counter;
  wait(grid.barrier, 3);
  if (*counter != static_cast<unsigned>(blocks()) * round) grid.bad_barrier = true;
  wait(grid.barrier, 3);
}

double shuffle_xor(double value, int mask) {
  Warp &warp = *launch.current->warp;
  const int lane = launch.current->lane;
  warp.exchange[lane] = value;
  warp_barrier();
  const double result = warp.exchange[lane ^ mask];
  warp_barrier();
  return result;
}

static void land(const PendingCopy &copy) {
  for (int i = 0; i < 4; ++i) copy.shared[i] = i < copy.elements ? copy.global[i] : 0.f;
}

void copy_async(float *shared, const float *global, int elements) {
  Fiber &fiber = *launch.current;
  const PendingCopy copy = {shared, global, elements, fiber.open_group};
  if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % 16) siglongjmp(escape, 1);
  if (grid.copies_land_at_once) return land(copy);
  std::memset(shared, 0xFF, 16);
  if (fiber.pending_count == MAX_PENDING) siglongjmp(escape, 1);
  fiber.pending[fiber.pending_count++] = copy;
}

void copy_async_commit() { ++launch.current->open_group; }

void copy_async_wait(unsigned pending, const char *file, int line) {
  if (removed(Site::AsyncWait, file, line)) return;
  Fiber &fiber = *launch.current;
  int landed = 0;
  while (landed < fiber.pending_count && fiber.pending[landed].group + pending < fiber.open_group)
    land(fiber.pending[landed++]);
  fiber.pending_count -= landed;
  std::memmove(fiber.pending, fiber.pending + landed, sizeof(PendingCopy) * static_cast<size_t>(fiber.pending_count));
}

// d += a·b over `depth` terms; `left(lane, row_half, k)` and `right(lane, k)` read the operands of a lane.
template <class Left, class Right>
static void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int depth, Left left, Right right) {
  Warp &warp = *launch.current->warp;
  const int lane = launch.current->lane, group = lane / 4, quad = lane % 4;
  warp.a[lane] = a;
  warp.b[lane] = b;
  warp_barrier();
  float sum[4];
  for (int e = 0; e < 4; ++e) {
    sum[e] = d[e];
    for (int k = 0; k < depth; ++k) sum[e] += left(warp, group, e / 2, k) * right(warp, quad * 2 + e % 2, k);
  }
  warp_barrier();
  for (int e = 0; e < 4; ++e) d[e] = sum[e];
}

void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma(d, a, b, 8,
      [](const Warp &w, int row, int half, int k) { return from_bits(w.a[row * 4 + k % 4][half + k / 4 * 2]); },
      [](const Warp &w, int column, int k) { return from_bits(w.b[column * 4 + k % 4][k / 4]); });
}

// The bfloat16 number in the lower or upper half of a word.
static float half_of(unsigned word, int upper) { return from_bits(upper ? word & 0xffff0000u : word << 16); }

void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma(d, a, b, 16,
      [](const Warp &w, int row, int half, int k) {
        return half_of(w.a[row * 4 + k % 8 / 2][half + k / 8 * 2], k % 2);
      },
      [](const Warp &w, int column, int k) { return half_of(w.b[column * 4 + k % 8 / 2][k / 8], k % 2); });
}

size_t site_count() {
  std::lock_guard<std::mutex> guard(sites_lock);
  return sites.size();
}

bool site_at(size_t index, int *kind, const char **file, int *line) {
  std::lock_guard<std::mutex> guard(sites_lock);
  if (index >= sites.size()) return false;
  *kind = static_cast<int>(sites[index].kind);
  *file = sites[index].file;
  *line = sites[index].line;
  return true;
}

void remove_site(size_t index) {
  std::lock_guard<std::mutex> guard(sites_lock);
  removed_site = index < sites.size() ? sites[index] : SiteInfo{Site::Mask, nullptr, 0};
}

} // namespace emu
