// Memory of the emulated driver: every allocation ends at an inaccessible page and starts out as NaN.
#pragma once

#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace emu {

class GuardedMemory {
public:
  // `bytes` bytes that start at a multiple of 16 and end less than 16 bytes before an inaccessible page.
  void *allocate(size_t bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), body = (bytes + page - 1) / page * page;
    void *pages = mmap(nullptr, body + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) return nullptr;
    char *base = static_cast<char *>(pages);
    mprotect(base, page, PROT_NONE);
    mprotect(base + page + body, page, PROT_NONE);
    std::memset(base + page, 0xFF, body);
    char *start = base + page + ((body - bytes) & ~size_t(15));
    blocks_[reinterpret_cast<uintptr_t>(start)] = {base, body + 2 * page, bytes};
    bytes_ += bytes;
    return start;
  }

  bool release(const void *start) {
    const auto found = blocks_.find(reinterpret_cast<uintptr_t>(start));
    if (found == blocks_.end()) return false;
    munmap(found->second.base, found->second.mapped);
    bytes_ -= found->second.bytes;
    blocks_.erase(found);
    return true;
  }

  // Whether `bytes` bytes from `start` lie in one allocation.
  bool contains(const void *start, size_t bytes) const {
    const auto address = reinterpret_cast<uintptr_t>(start);
    auto next = blocks_.upper_bound(address);
    if (next == blocks_.begin()) return false;
    const auto &[base, block] = *std::prev(next);
    return address + bytes <= base + block.bytes;
  }

  size_t count() const { return blocks_.size(); }
  size_t bytes() const { return bytes_; }

private:
  struct Allocation {
    char *base;
    size_t mapped;
    size_t bytes;
  };
  std::map<uintptr_t, Allocation> blocks_;
  size_t bytes_ = 0;
};

inline GuardedMemory &device_memory() {
  static GuardedMemory memory;
  return memory;
}

inline GuardedMemory &pinned_memory() {
  static GuardedMemory memory;
  return memory;
}

} // namespace emu
