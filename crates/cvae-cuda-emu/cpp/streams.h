// State of the emulated driver: streams as queues, events, graphs, and the error that a lost device leaves.
#pragma once

#include "kernels.h"
#include "scheduler.h"

#include <cstdint>
#include <ctime>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace emu {

using CUresult = int;
using DevicePointer = unsigned long long;
enum : int {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_FAILED = 719,
  COOPERATIVE_LAUNCH_TOO_LARGE = 720,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
};

using Operation = std::function<void()>;

struct Graph {
  std::vector<Operation> operations;
};

struct Stream {
  std::deque<Operation> queue;
  uint64_t issued = 0;
  uint64_t finished = 0;
  Graph *capture = nullptr;
};

struct Event {
  Stream *stream = nullptr;
  uint64_t position = 0;  // operations of the stream before the event
  double milliseconds = 0.0;
};

inline std::recursive_mutex lock;
using Guard = std::lock_guard<std::recursive_mutex>;
inline int context_token;
inline int module_token;
inline int lost = SUCCESS;  // the error that every call returns once the device is lost
inline uint64_t launches = 0, allocations = 0;  // since the device was last revived
inline uint64_t modules = 0, graphs = 0, graph_execs = 0;
inline std::map<Stream *, std::unique_ptr<Stream>> streams;
inline std::map<Event *, std::unique_ptr<Event>> events;
inline std::vector<Kernel> kernels;

inline double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
}

// ---- Streams ----

inline void drain(Stream &stream, uint64_t position) {
  while (stream.finished < position && !stream.queue.empty()) {
    Operation operation = std::move(stream.queue.front());
    stream.queue.pop_front();
    if (lost == SUCCESS) operation();
    ++stream.finished;
  }
}

inline Stream *find_stream(void *handle) {
  auto found = streams.find(static_cast<Stream *>(handle));
  return found == streams.end() ? nullptr : found->second.get();
}

inline Event *find_event(void *handle) {
  auto found = events.find(static_cast<Event *>(handle));
  return found == events.end() ? nullptr : found->second.get();
}

inline CUresult issue(void *handle, Operation operation) {
  Stream *stream = find_stream(handle);
  if (!stream) return INVALID_HANDLE;
  if (stream->capture) {
    stream->capture->operations.push_back(std::move(operation));
    return SUCCESS;
  }
  stream->queue.push_back(std::move(operation));
  ++stream->issued;
  if (options.early_streams) drain(*stream, stream->issued);
  return lost;
}

} // namespace emu
