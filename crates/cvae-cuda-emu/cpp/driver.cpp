// The emulated libcuda.so.1: the driver entry points that cvae-cuda uses, with the driver's semantics.
//
// Streams are queues. Unless told otherwise, an operation runs when somebody waits for it and no earlier, so that
// a missing wait shows as stale data. Pageable host memory is staged at once, pinned memory is read and written
// when the copy runs, kernel arguments are copied at the launch, all as the real driver does.
#include "kernels.h"
#include "memory.h"
#include "scheduler.h"
#include "streams.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

using namespace emu;

namespace {

// ---- Launches ----

void execute(const Kernel &kernel, emu::LaunchShape shape, std::vector<std::vector<char>> &arguments) {
  if (lost != SUCCESS) return;
  ++launches;
  if (launches == emu::options.fail_launch) {
    lost = LAUNCH_FAILED;
    return;
  }
  std::vector<void *> pointers;
  for (std::vector<char> &argument : arguments) pointers.push_back(argument.data());
  switch (emu::run(shape, [&] { kernel.call(pointers.data()); }, launches)) {
  case emu::Outcome::Done: break;
  case emu::Outcome::IllegalAddress: lost = ILLEGAL_ADDRESS; break;
  case emu::Outcome::Deadlock:
  case emu::Outcome::BadBarrier: lost = LAUNCH_FAILED; break;
  }
}

constexpr unsigned BLOCKS_PER_MULTIPROCESSOR = 1;

CUresult launch(void *function, const unsigned (&grid)[3], const unsigned (&block)[3], unsigned shared, void *stream,
                void **arguments, bool cooperative) {
  if (lost != SUCCESS) return lost;
  const auto *kernel = static_cast<const Kernel *>(function);
  const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2], threads = uint64_t(block[0]) * block[1] * block[2];
  if (!kernel || grid[1] != 1 || grid[2] != 1 || block[1] != 1 || block[2] != 1) return INVALID_VALUE;
  if (!blocks || blocks > 0x7fffffffu || !threads || threads > 1024 || shared > kernel->shared_limit) return INVALID_VALUE;
  if (cooperative && blocks > emu::options.multiprocessors * BLOCKS_PER_MULTIPROCESSOR) return COOPERATIVE_LAUNCH_TOO_LARGE;
  auto copies = std::make_shared<std::vector<std::vector<char>>>();
  for (size_t i = 0; i < kernel->argument_sizes.size(); ++i) {
    const char *argument = static_cast<const char *>(arguments[i]);
    copies->emplace_back(argument, argument + kernel->argument_sizes[i]);
  }
  const emu::LaunchShape shape = {static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared, cooperative};
  return issue(stream, [=] { execute(*kernel, shape, *copies); });
}

} // namespace

// ---- Control, for the Rust side of this crate ----

namespace {

// The option called `name`, or null.
uint64_t *option(const std::string &name) {
  static const std::map<std::string, uint64_t *> fields = {
      {"seed", &emu::options.seed},
      {"memory", &emu::options.memory},
      {"multiprocessors", &emu::options.multiprocessors},
      {"device", &emu::options.device},
      {"driver_version", &emu::options.driver_version},
      {"fail_launch", &emu::options.fail_launch},
      {"fail_allocation", &emu::options.fail_allocation},
      {"early_streams", &emu::options.early_streams},
  };
  const auto found = fields.find(name);
  return found == fields.end() ? nullptr : found->second;
}

// Options of a program that knows nothing of the emulator: CVAE_CUDA_EMU="memory=1000000,fail_launch=3".
__attribute__((constructor)) void read_environment() {
  const char *text = std::getenv("CVAE_CUDA_EMU");
  if (!text) return;
  std::stringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    const size_t equals = word.find('=');
    uint64_t *field = option(word.substr(0, equals));
    char *end = nullptr;
    const char *digits = equals == std::string::npos ? "" : word.c_str() + equals + 1;
    const uint64_t value = std::strtoull(digits, &end, 10);
    if (!field || !*digits || *end) {
      std::fprintf(stderr, "CVAE_CUDA_EMU: `%s` is no option of the emulated driver\n", word.c_str());
      std::abort();
    }
    *field = value;
  }
}

} // namespace

API int emu_set(const char *name, uint64_t value) {
  Guard guard(lock);
  uint64_t *field = option(name);
  if (!field) return INVALID_VALUE;
  *field = value;
  return SUCCESS;
}

API int emu_get(const char *name, uint64_t *value) {
  Guard guard(lock);
  const std::map<std::string, uint64_t> fields = {
      {"launches", launches},
      {"allocations", allocations},
      {"device_allocations", emu::device_memory().count()},
      {"device_bytes", emu::device_memory().bytes()},
      {"host_allocations", emu::pinned_memory().count()},
      {"streams", streams.size()},
      {"events", events.size()},
      {"modules", modules},
      {"graphs", graphs + graph_execs},
      {"lost", static_cast<uint64_t>(lost)},
      {"sites", emu::site_count()},
  };
  const auto found = fields.find(name);
  if (found == fields.end()) return INVALID_VALUE;
  *value = found->second;
  return SUCCESS;
}

API int emu_site(size_t index, int *kind, const char **file, int *line) {
  return emu::site_at(index, kind, file, line) ? SUCCESS : INVALID_VALUE;
}

API void emu_remove_site(size_t index) { emu::remove_site(index); }

// Makes a lost device usable again.
API void emu_revive() {
  Guard guard(lock);
  lost = SUCCESS;
  launches = allocations = 0;
}

// ---- Device and context ----

API CUresult cuInit(unsigned) { return emu::options.device ? SUCCESS : NO_DEVICE; }

API CUresult cuDriverGetVersion(int *version) {
  *version = static_cast<int>(emu::options.driver_version);
  return SUCCESS;
}

API CUresult cuDeviceGetCount(int *count) {
  *count = emu::options.device ? 1 : 0;
  return SUCCESS;
}

API CUresult cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal == 0 && emu::options.device ? SUCCESS : INVALID_DEVICE;
}

API CUresult cuDeviceGetName(char *name, int length, int) {
  std::snprintf(name, static_cast<size_t>(length), "emulated GPU");
  return SUCCESS;
}

API CUresult cuDeviceGetAttribute(int *value, int attribute, int) {
  switch (attribute) {
  case 1: *value = 1024; break;       // threads per block
  case 16: *value = static_cast<int>(emu::options.multiprocessors); break;
  case 75: *value = 8; break;         // compute capability, major
  case 76: *value = 0; break;         // compute capability, minor
  case 95: *value = 1; break;         // cooperative launch
  case 97: *value = 163 * 1024; break; // shared memory per block, opted in
  default: *value = 0;
  }
  return SUCCESS;
}

API CUresult cuDeviceTotalMem_v2(size_t *bytes, int) {
  *bytes = emu::options.memory;
  return SUCCESS;
}

API CUresult cuDevicePrimaryCtxRetain(void **context, int) {
  *context = &context_token;
  return lost;
}

API CUresult cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API CUresult cuCtxSetCurrent(void *) { return lost; }

API CUresult cuGetErrorName(int error, const char **text) {
  switch (error) {
  case SUCCESS: *text = "CUDA_SUCCESS"; break;
  case INVALID_VALUE: *text = "CUDA_ERROR_INVALID_VALUE"; break;
  case OUT_OF_MEMORY: *text = "CUDA_ERROR_OUT_OF_MEMORY"; break;
  case NO_DEVICE: *text = "CUDA_ERROR_NO_DEVICE"; break;
  case ILLEGAL_ADDRESS: *text = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
  case LAUNCH_FAILED: *text = "CUDA_ERROR_LAUNCH_FAILED"; break;
  default: *text = "CUDA_ERROR_UNKNOWN";
  }
  return SUCCESS;
}

API CUresult cuGetErrorString(int error, const char **text) {
  switch (error) {
  case OUT_OF_MEMORY: *text = "out of memory"; break;
  case ILLEGAL_ADDRESS: *text = "an illegal memory access was encountered"; break;
  case LAUNCH_FAILED: *text = "unspecified launch failure"; break;
  default: *text = "an error of the emulated driver";
  }
  return SUCCESS;
}

// ---- Memory ----

API CUresult cuMemAlloc_v2(DevicePointer *pointer, size_t bytes) {
  Guard guard(lock);
  if (lost != SUCCESS) return lost;
  if (!bytes) return INVALID_VALUE;
  if (++allocations == emu::options.fail_allocation) return OUT_OF_MEMORY;
  if (bytes > emu::options.memory || emu::device_memory().bytes() > emu::options.memory - bytes) return OUT_OF_MEMORY;
  void *start = emu::device_memory().allocate(bytes);
  *pointer = reinterpret_cast<DevicePointer>(start);
  return start ? SUCCESS : OUT_OF_MEMORY;
}

API CUresult cuMemFree_v2(DevicePointer pointer) {
  Guard guard(lock);
  for (auto &[handle, stream] : streams) drain(*stream, stream->issued);  // freeing waits for the device
  return emu::device_memory().release(reinterpret_cast<void *>(pointer)) ? lost : INVALID_VALUE;
}

API CUresult cuMemGetInfo_v2(size_t *free, size_t *total) {
  Guard guard(lock);
  *total = emu::options.memory;
  const size_t used = emu::device_memory().bytes();
  *free = used < *total ? *total - used : 0;
  return lost;
}

API CUresult cuMemHostAlloc(void **pointer, size_t bytes, unsigned) {
  Guard guard(lock);
  if (lost != SUCCESS) return lost;
  *pointer = emu::pinned_memory().allocate(bytes);
  return *pointer ? SUCCESS : OUT_OF_MEMORY;
}

API CUresult cuMemFreeHost(void *pointer) {
  Guard guard(lock);
  for (auto &[handle, stream] : streams) drain(*stream, stream->issued);
  return emu::pinned_memory().release(pointer) ? lost : INVALID_VALUE;
}

API CUresult cuMemcpyHtoDAsync_v2(DevicePointer to, const void *from, size_t bytes, void *stream) {
  Guard guard(lock);
  void *target = reinterpret_cast<void *>(to);
  if (!emu::device_memory().contains(target, bytes)) return INVALID_VALUE;
  if (emu::pinned_memory().contains(from, bytes)) return issue(stream, [=] { std::memcpy(target, from, bytes); });
  const char *source = static_cast<const char *>(from);
  auto staged = std::make_shared<std::vector<char>>(source, source + bytes);
  return issue(stream, [=] { std::memcpy(target, staged->data(), bytes); });
}

API CUresult cuMemcpyDtoHAsync_v2(void *to, DevicePointer from, size_t bytes, void *stream) {
  Guard guard(lock);
  const void *source = reinterpret_cast<const void *>(from);
  if (!emu::device_memory().contains(source, bytes)) return INVALID_VALUE;
  const CUresult result = issue(stream, [=] { std::memcpy(to, source, bytes); });
  Stream *queue = find_stream(stream);
  if (queue && !emu::pinned_memory().contains(to, bytes)) drain(*queue, queue->issued);
  return result == SUCCESS ? lost : result;
}

API CUresult cuMemsetD8Async(DevicePointer to, unsigned char value, size_t bytes, void *stream) {
  Guard guard(lock);
  void *target = reinterpret_cast<void *>(to);
  if (!emu::device_memory().contains(target, bytes)) return INVALID_VALUE;
  return issue(stream, [=] { std::memset(target, value, bytes); });
}

// ---- Streams and events ----

API CUresult cuStreamCreate(void **handle, unsigned) {
  Guard guard(lock);
  if (lost != SUCCESS) return lost;
  auto stream = std::make_unique<Stream>();
  Stream *key = stream.get();
  streams[key] = std::move(stream);
  *handle = key;
  return SUCCESS;
}

API CUresult cuStreamDestroy_v2(void *handle) {
  Guard guard(lock);
  Stream *stream = find_stream(handle);
  if (!stream) return INVALID_HANDLE;
  drain(*stream, stream->issued);
  for (auto &[key, event] : events)
    if (event->stream == stream) event->stream = nullptr;
  streams.erase(stream);
  return lost;
}

API CUresult cuStreamSynchronize(void *handle) {
  Guard guard(lock);
  Stream *stream = find_stream(handle);
  if (!stream) return INVALID_HANDLE;
  if (stream->capture) return CAPTURE_UNSUPPORTED;
  drain(*stream, stream->issued);
  return lost;
}

API CUresult cuStreamWaitEvent(void *handle, void *event_handle, unsigned) {
  Guard guard(lock);
  Event *event = find_event(event_handle);
  if (!event) return INVALID_HANDLE;
  Stream *other = event->stream;
  const uint64_t position = event->position;
  if (!other) return SUCCESS;
  return issue(handle, [=] {
    if (find_stream(other)) drain(*other, position);
  });
}

API CUresult cuEventCreate(void **handle, unsigned) {
  Guard guard(lock);
  if (lost != SUCCESS) return lost;
  auto event = std::make_unique<Event>();
  Event *key = event.get();
  events[key] = std::move(event);
  *handle = key;
  return SUCCESS;
}

API CUresult cuEventDestroy_v2(void *handle) {
  Guard guard(lock);
  return events.erase(static_cast<Event *>(handle)) ? SUCCESS : INVALID_HANDLE;
}

API CUresult cuEventRecord(void *handle, void *stream_handle) {
  Guard guard(lock);
  Event *event = find_event(handle);
  Stream *stream = find_stream(stream_handle);
  if (!event || !stream) return INVALID_HANDLE;
  event->stream = stream;
  const CUresult result = issue(stream_handle, [=] {
    if (Event *live = find_event(event)) live->milliseconds = now();
  });
  event->position = stream->issued;
  return result;
}

API CUresult cuEventSynchronize(void *handle) {
  Guard guard(lock);
  Event *event = find_event(handle);
  if (!event) return INVALID_HANDLE;
  if (event->stream) drain(*event->stream, event->position);
  return lost;
}

API CUresult cuEventElapsedTime_v2(float *milliseconds, void *start, void *end) {
  Guard guard(lock);
  const Event *first = find_event(start), *last = find_event(end);
  if (!first || !last) return INVALID_HANDLE;
  for (const Event *event : {first, last})
    if (event->stream && event->stream->finished < event->position) return NOT_READY;
  *milliseconds = static_cast<float>(last->milliseconds - first->milliseconds);
  return lost;
}

// ---- Modules and launches ----

API CUresult cuModuleLoadData(void **module, const void *image) {
  Guard guard(lock);
  if (!image || lost != SUCCESS) return image ? lost : INVALID_VALUE;
  if (kernels.empty()) kernels = kernel_table();
  ++modules;
  *module = &module_token;
  return SUCCESS;
}

API CUresult cuModuleUnload(void *) {
  Guard guard(lock);
  --modules;
  return SUCCESS;
}

API CUresult cuModuleGetFunction(void **function, void *, const char *name) {
  Guard guard(lock);
  for (Kernel &kernel : kernels)
    if (std::strcmp(kernel.name, name) == 0) {
      *function = &kernel;
      return SUCCESS;
    }
  return NOT_FOUND;
}

API CUresult cuFuncSetAttribute(void *function, int attribute, int value) {
  Guard guard(lock);
  if (attribute == 8) static_cast<Kernel *>(function)->shared_limit = static_cast<size_t>(value);
  return SUCCESS;
}

API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *, int, size_t) {
  *blocks = static_cast<int>(BLOCKS_PER_MULTIPROCESSOR);
  return SUCCESS;
}

API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, void *, int, size_t, unsigned) {
  *blocks = static_cast<int>(BLOCKS_PER_MULTIPROCESSOR);
  return SUCCESS;
}

API CUresult cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                            unsigned shared, void *stream, void **arguments, void **) {
  Guard guard(lock);
  return launch(function, {gx, gy, gz}, {bx, by, bz}, shared, stream, arguments, false);
}

API CUresult cuLaunchCooperativeKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                       unsigned bz, unsigned shared, void *stream, void **arguments) {
  Guard guard(lock);
  return launch(function, {gx, gy, gz}, {bx, by, bz}, shared, stream, arguments, true);
}

// ---- Graphs ----

API CUresult cuStreamBeginCapture_v2(void *handle, int) {
  Guard guard(lock);
  Stream *stream = find_stream(handle);
  if (!stream) return INVALID_HANDLE;
  if (stream->capture) return CAPTURE_INVALIDATED;
  stream->capture = new Graph;
  ++graphs;
  return SUCCESS;
}

API CUresult cuStreamEndCapture(void *handle, void **graph) {
  Guard guard(lock);
  Stream *stream = find_stream(handle);
  if (!stream || !stream->capture) return CAPTURE_INVALIDATED;
  *graph = stream->capture;
  stream->capture = nullptr;
  return SUCCESS;
}

API CUresult cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long) {
  Guard guard(lock);
  *exec = new Graph(*static_cast<Graph *>(graph));
  ++graph_execs;
  return lost;
}

API CUresult cuGraphUpload(void *, void *) { return lost; }

API CUresult cuGraphLaunch(void *exec, void *stream) {
  Guard guard(lock);
  for (const Operation &operation : static_cast<Graph *>(exec)->operations)
    if (const CUresult result = issue(stream, operation)) return result;
  return lost;
}

API CUresult cuGraphExecDestroy(void *exec) {
  Guard guard(lock);
  for (auto &[handle, stream] : streams) drain(*stream, stream->issued);
  delete static_cast<Graph *>(exec);
  --graph_execs;
  return SUCCESS;
}

API CUresult cuGraphDestroy(void *graph) {
  Guard guard(lock);
  delete static_cast<Graph *>(graph);
  --graphs;
  return SUCCESS;
}
