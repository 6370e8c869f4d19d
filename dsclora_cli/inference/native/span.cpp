// The CPU engine of dsclora: SPAN networks in merged form, float32, all layers at once on blocks that stay in caches.
//
// The functions at the end, with C linkage, are the whole interface; dsclora_cli/inference/native/library.py calls them.
//
// A picture is cut into blocks of 8 rows by 4 * lanes columns. A stage is the reading of the picture, or a layer. A task
// computes one block of one stage. Tasks run in an order in which a stage is two bands of blocks behind the stage before,
// so a map (the output of a stage) keeps only the last few bands, and what a task reads was written a short time ago.
// The arithmetic of a block depends neither on the order nor on the number of threads, so the result has the same bytes.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

// GCC for Windows keeps vectors of 32 and 64 bytes at addresses of the stack where the CPU refuses them (GCC bug 54412).
// The portable code needs no more than the 16 bytes that are guaranteed there; Clang has no such bug.
#if (defined(__x86_64__) || defined(__i386__)) && !(defined(_WIN32) && !defined(__clang__))
#define DSCLORA_X86 1
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int kTall = 2;           // tiles of a block above one another: the two vectors of a matrix product
constexpr int kRows = 4 * kTall;   // pixel rows of a block
constexpr int kCell = 16 * kTall;  // vectors of a channel of a block: [row][x modulo 4]
constexpr int kTaps = 36;          // products of a tile

// Bands that a stage is behind the stage before. With 1, a task waits for tasks right before it; with 2, for tasks that
// all threads have long left behind, also where another program holds the core of a thread for a while.
constexpr int kLag = 2;

// Winograd's points are 0, +-kA, +-kB and infinity. With the usual 1 and 2 rounding errors are 2.2 times as large; these
// are the best of multiples of 1/16, whose powers and products are exact floats.
constexpr float kA = 11 / 16.0f, kB = 25 / 16.0f;

enum class PixelType { kUint8 = 0, kUint16 = 1, kFloat32 = 2 };

// What follows a convolution: SiLU; the attention gate; the sum with a 1x1 convolution; the shuffle into pixels.
enum class After { kNothing, kSilu, kGate, kSum, kPixels };

struct Layer {
  int inputs = 0, outputs = 0;
  After after = After::kNothing;
  int residual = 0;               // kGate: map with the input of the attention block
  std::vector<int> sums;          // kSum: maps that the 1x1 convolution reads
  std::vector<float> weights;     // transformed, in groups of outputs: [group][36][input][output of the group]
  std::vector<float> pointwise;   // kSum: [map][group][input][output of the group]
  std::vector<float> bias;
};

struct Picture {
  const void* in;  // (height, width, channels)
  void* out;       // (scale * height, scale * width, channels), of the same type
  PixelType type;
  int channels;    // 3, or 1: gray runs as three equal channels, and the mean of the three results comes back
  float low, high; // values of black and white
  bool limited;    // limit the result to the range from `low` to `high`
};

struct Network {
  int channels, scale;
  float mean[3], range;
  std::vector<Layer> layers;
};

struct Map {
  int channels;
  int bands;        // of the ring: band b is in place of band b - bands
  int last_reader;  // last stage that reads the map
  float* data;
};

// A picture on the way through the network. Threads share the object; only progress, next and finite change.
struct Run {
  const Network& network;
  Picture picture;
  int height, width;
  int lanes, bands, chunks;
  std::vector<Map> maps;
  const float* zeros = nullptr;  // a block outside the picture
  std::vector<std::atomic<int>> progress;  // bands finished, by stage and chunk
  std::atomic<int64_t> next{0};
  std::atomic<bool> finite{true};

  Run(const Network& net, const Picture& pic, int h, int w, int vector_lanes)
      : network(net), picture(pic), height(h), width(w), lanes(vector_lanes), bands((h + kRows - 1) / kRows),
        chunks((w + 4 * lanes - 1) / (4 * lanes)), progress((net.layers.size() + 1) * chunks) {}

  size_t block_size(int map) const { return size_t(maps[map].channels) * kCell * lanes; }

  float* block(int map, int band, int chunk) const {
    return maps[map].data + (size_t(band % maps[map].bands) * chunks + chunk) * block_size(map);
  }

  const float* block_or_zeros(int map, int band, int chunk) const {
    const bool inside = band >= 0 && band < bands && chunk >= 0 && chunk < chunks;
    return inside ? block(map, band, chunk) : zeros;
  }
};

// The functions for one instruction set.
struct Kernels {
  const char* name;
  int lanes, outputs;
  void (*read_block)(const Run&, int band, int chunk);
  bool (*run_layer)(const Run&, int stage, int band, int chunk, float* scratch);
};

// Outputs of the group that starts at `first`: as few groups of at most `most` as possible, of nearly equal size.
int group_size(int outputs, int first, int most) {
  const int groups = (outputs - first + most - 1) / most;
  return (outputs - first + groups - 1) / groups;
}

// GCC takes the instruction set from the pragma in force where a function is defined, templates included. So the kernels
// are compiled once for each instruction set, and no function of the standard library is.
#if defined(DSCLORA_X86)
#if defined(__clang__)
#define DSCLORA_BEGIN(set) _Pragma(set)
#define DSCLORA_AVX512_SET \
  "clang attribute push(__attribute__((target(\"avx512f,avx512dq,avx512bw,avx512vl,avx2,fma\"))), apply_to = function)"
#define DSCLORA_AVX2_SET "clang attribute push(__attribute__((target(\"avx2,fma\"))), apply_to = function)"
#define DSCLORA_END _Pragma("clang attribute pop")
#else
#define DSCLORA_BEGIN(set) _Pragma("GCC push_options") _Pragma(set)
#define DSCLORA_AVX512_SET "GCC target(\"avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512\")"
#define DSCLORA_AVX2_SET "GCC target(\"avx2,fma\")"
#define DSCLORA_END _Pragma("GCC pop_options")
#endif

DSCLORA_BEGIN(DSCLORA_AVX512_SET)
namespace avx512 {
constexpr char kName[] = "avx512";
#define DSCLORA_AVX512
#include "vectors.h"
#include "kernels.h"
#undef DSCLORA_AVX512
}  // namespace avx512
DSCLORA_END

DSCLORA_BEGIN(DSCLORA_AVX2_SET)
namespace avx2 {
constexpr char kName[] = "avx2";
#define DSCLORA_AVX2
#include "vectors.h"
#include "kernels.h"
#undef DSCLORA_AVX2
}  // namespace avx2
DSCLORA_END
#elif defined(__aarch64__)
namespace neon {
constexpr char kName[] = "neon";
#define DSCLORA_NEON
#include "vectors.h"
#include "kernels.h"
#undef DSCLORA_NEON
}  // namespace neon
#endif

namespace portable {
constexpr char kName[] = "portable";
#include "vectors.h"
#include "kernels.h"
}  // namespace portable

// Return the kernels by name, or the fastest for this CPU where `wanted` is empty; null if the CPU cannot run them.
const Kernels* choose_kernels(const char* wanted) {
  const bool any = !wanted || !*wanted;
  auto wants = [&](const Kernels& kernels) { return any || !std::strcmp(wanted, kernels.name); };
#if defined(DSCLORA_X86)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && wants(avx512::kKernels)) return &avx512::kKernels;
  if (has_avx2 && wants(avx2::kKernels)) return &avx2::kKernels;
#elif defined(__aarch64__)
  if (wants(neon::kKernels)) return &neon::kKernels;
#endif
  return wants(portable::kKernels) ? &portable::kKernels : nullptr;
}

// Numbers too small for normal floats are zero while an object lives. Computing with them is a hundred times slower,
// and they decide about nothing in a picture. The setting belongs to the thread, so the caller gets back its own.
class FlushDenormals {
 public:
  FlushDenormals() {
#if defined(DSCLORA_X86) && defined(__SSE__)
    kept_ = _mm_getcsr();
    _mm_setcsr(unsigned(kept_) | 0x8040);  // flush results to zero, and read inputs as zero
#elif defined(__aarch64__)
    __asm__ volatile("mrs %0, fpcr" : "=r"(kept_));
    __asm__ volatile("msr fpcr, %0" : : "r"(kept_ | (uint64_t(1) << 24)));
#endif
  }
  ~FlushDenormals() {
#if defined(DSCLORA_X86) && defined(__SSE__)
    _mm_setcsr(unsigned(kept_));
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(kept_));
#endif
  }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  uint64_t kept_ = 0;
};

// Memory that grows and never shrinks: touching new pages costs as much as several layers.
class Workspace {
 public:
  ~Workspace() { release(); }
  float* grown_to(size_t floats) {
    if (floats > size_) {
      release();
      const size_t bytes = (floats * sizeof(float) + kHugePage - 1) / kHugePage * kHugePage;
      data_ = static_cast<float*>(::operator new(bytes, std::align_val_t(kHugePage)));
#if defined(__linux__)
      // A task reads hundreds of small pages, more than a core remembers the addresses of.
      madvise(data_, bytes, MADV_HUGEPAGE);
#endif
      size_ = floats;
    }
    return data_;
  }

 private:
  void release() {
    ::operator delete(data_, std::align_val_t(kHugePage));
    data_ = nullptr;
    size_ = 0;
  }

  static constexpr size_t kHugePage = size_t(1) << 21;

  float* data_ = nullptr;
  size_t size_ = 0;
};

// Reads the weights one tensor after the other, and lays them out for kernels with groups of `most` outputs.
class WeightReader {
 public:
  WeightReader(const double* weights, int most) : next_(weights), most_(most) {}

  Layer convolution(int inputs, int outputs, After after) {
    Layer layer;
    layer.inputs = inputs, layer.outputs = outputs, layer.after = after;
    const double* kernels = take(size_t(outputs) * inputs * 9);
    layer.weights.resize(size_t(kTaps) * inputs * outputs);
    for (int output = 0; output < outputs; output++) {
      int first = 0, count = 0;
      for (; first + (count = group_size(outputs, first, most_)) <= output; first += count) {}
      float* group = layer.weights.data() + size_t(kTaps) * inputs * first;
      for (int input = 0; input < inputs; input++) {
        double values[kTaps];
        transform(kernels + (size_t(output) * inputs + input) * 9, values);
        for (int f = 0; f < kTaps; f++)
          group[(size_t(f) * inputs + input) * count + output - first] = float(values[f]);
      }
    }
    if (after == After::kSum) layer.pointwise = pointwise(outputs, 3);
    const double* bias = take(outputs);
    layer.bias.assign(bias, bias + outputs);
    return layer;
  }

 private:
  // The 1x1 kernel (channels, maps * channels).
  std::vector<float> pointwise(int channels, int maps) {
    const double* kernel = take(size_t(channels) * maps * channels);
    std::vector<float> packed(size_t(maps) * channels * channels);
    for (int map = 0; map < maps; map++) {
      for (int first = 0, count; first < channels; first += count) {
        count = group_size(channels, first, most_);
        float* group = packed.data() + (size_t(map) * channels + first) * channels;
        for (int input = 0; input < channels; input++)
          for (int m = 0; m < count; m++)
            group[size_t(input) * count + m] = float(kernel[(size_t(first + m) * maps + map) * channels + input]);
      }
    }
    return packed;
  }

  const double* take(size_t count) {
    const double* taken = next_;
    next_ += count;
    return taken;
  }

  // G g G' of Winograd's F(4x4, 3x3).
  static void transform(const double* g, double* out) {
    constexpr double a = kA, b = kB;
    double G[6][3] = {{1, 0, 0}, {1, a, a * a}, {1, -a, a * a}, {1, b, b * b}, {1, -b, b * b}, {0, 0, 1}};
    const double divisors[] = {a * a * b * b, 2 * a * a * (a * a - b * b), 2 * b * b * (b * b - a * a)};
    for (int i = 0; i < 5; i++)
      for (double& value : G[i]) value /= divisors[(i + 1) / 2];
    for (int i = 0; i < 6; i++) {
      for (int j = 0; j < 6; j++) {
        double sum = 0;
        for (int y = 0; y < 3; y++)
          for (int x = 0; x < 3; x++) sum += G[i][y] * g[3 * y + x] * G[j][x];
        out[6 * i + j] = sum;
      }
    }
  }

  const double* next_;
  int most_;
};

// A network and the memory to run it.
struct Engine {
  const Kernels* kernels;
  Network network;
  Workspace workspace;
  std::mutex running;  // held during a run, as runs share the workspace
};

Network build_network(int channels, int blocks, int scale, const float* mean, float range, const double* weights,
                      int most) {
  Network network{channels, scale, {mean[0], mean[1], mean[2]}, range, {}};
  WeightReader reader(weights, most);
  auto append = [&](int inputs, int outputs, After after) -> Layer& {
    network.layers.push_back(reader.convolution(inputs, outputs, after));
    return network.layers.back();
  };
  // The output of layer i is map i + 1; map 0 is the picture.
  append(3, channels, After::kNothing);
  for (int block = 0; block < blocks; block++) {
    append(channels, channels, After::kSilu);
    append(channels, channels, After::kSilu);
    append(channels, channels, After::kGate).residual = 3 * block + 1;
  }
  // The 1x1 convolution of conv_1, of the first block, and of the first activation of the last block.
  append(channels, channels, After::kSum).sums = {1, 4, 3 * blocks - 1};
  append(channels, 3 * scale * scale, After::kPixels);
  return network;
}

void plan_maps(Run& run) {
  const std::vector<Layer>& layers = run.network.layers;
  run.maps.push_back({3, 0, 1, nullptr});
  for (size_t i = 0; i + 1 < layers.size(); i++) run.maps.push_back({layers[i].outputs, 0, int(i) + 2, nullptr});
  for (size_t i = 0; i < layers.size(); i++) {
    const int stage = int(i) + 1;
    auto reads = [&](int map) { run.maps[map].last_reader = std::max(run.maps[map].last_reader, stage); };
    if (layers[i].after == After::kGate) reads(layers[i].residual);
    for (int map : layers[i].sums) reads(map);
  }
  for (size_t i = 0; i < run.maps.size(); i++)
    // A 3x3 convolution reads a band more on either side than the band to compute.
    run.maps[i].bands = std::min(run.bands, kLag * (run.maps[i].last_reader - int(i)) + 2);
}

size_t scratch_floats(const Run& run, const Kernels& kernels) {
  const int channels = run.network.channels, outputs = run.network.layers.back().outputs;
  const size_t inputs = kTaps * (size_t(std::max(3, channels)) * kTall + 32) * run.lanes;
  const size_t products = size_t(kTaps) * kernels.outputs * kTall * run.lanes;
  return inputs + products + size_t(outputs) * kCell * run.lanes;
}

// Wait until a task may run: until the blocks to read are there, and nobody needs the blocks to write over.
void wait_for_turn(const Run& run, int stage, int band, int chunk) {
  auto wait = [&](int of_stage, int of_chunk, int bands) {
    const std::atomic<int>& done = run.progress[size_t(of_stage) * run.chunks + of_chunk];
    for (int spins = 0; done.load(std::memory_order_acquire) < bands; spins++) {
      // A task takes microseconds. A longer wait means that another program holds the core of the thread to wait for.
      if (spins > 400) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      } else if (spins > 200) {
        std::this_thread::yield();
      }
    }
  };
  const int left = std::max(0, chunk - 1), right = std::min(run.chunks - 1, chunk + 1);
  wait(stage, chunk, band);
  // Maps of earlier stages are complete as far as the map of the stage before is.
  for (int c = left; stage > 0 && c <= right; c++) wait(stage - 1, c, std::min(run.bands, band + 2));
  if (stage >= int(run.maps.size())) return;
  const Map& map = run.maps[stage];
  const int oldest = band - map.bands;  // the band to write over
  if (oldest < 0) return;
  if (map.last_reader > stage + 1) return wait(map.last_reader, chunk, oldest + 1);
  for (int c = left; c <= right; c++) wait(stage + 1, c, std::min(run.bands, oldest + 2));
}

// Take tasks in order until none is left. Every thread waits only for tasks before its own, so one can always go on.
void work(Run& run, const Kernels& kernels, const std::vector<std::pair<int, int>>& order, float* scratch) {
  FlushDenormals flush;
  const int64_t tasks = int64_t(order.size()) * run.chunks;
  for (int64_t task; (task = run.next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
    const auto [stage, band] = order[size_t(task / run.chunks)];
    const int chunk = int(task % run.chunks);
    wait_for_turn(run, stage, band, chunk);
    if (stage == 0) {
      kernels.read_block(run, band, chunk);
    } else if (!kernels.run_layer(run, stage, band, chunk, scratch)) {
      run.finite.store(false, std::memory_order_relaxed);
    }
    run.progress[size_t(stage) * run.chunks + chunk].store(band + 1, std::memory_order_release);
  }
}

// The order of tasks, as pairs of a stage and a band.
std::vector<std::pair<int, int>> plan_order(const Run& run) {
  std::vector<std::pair<int, int>> order;
  const int stages = int(run.network.layers.size()) + 1;
  for (int step = 0; step < run.bands + kLag * (stages - 1); step++) {
    for (int stage = 0; stage < stages; stage++) {
      const int band = step - kLag * stage;
      if (band >= 0 && band < run.bands) order.push_back({stage, band});
    }
  }
  return order;
}

// Returns whether all values of the result are finite.
bool upscale(Engine& engine, const Picture& picture, int height, int width, int threads) {
  std::lock_guard<std::mutex> lock(engine.running);
  Run run(engine.network, picture, height, width, engine.kernels->lanes);
  plan_maps(run);
  const std::vector<std::pair<int, int>> order = plan_order(run);
  threads = int(std::min<int64_t>(std::max(1, threads), int64_t(order.size()) * run.chunks));

  const size_t zeros = size_t(std::max(3, run.network.channels)) * kCell * run.lanes;
  const size_t scratch = (scratch_floats(run, *engine.kernels) + 15) / 16 * 16;
  size_t floats = zeros + scratch * threads;
  for (size_t i = 0; i < run.maps.size(); i++) floats += run.block_size(int(i)) * run.maps[i].bands * run.chunks;
  float* free = engine.workspace.grown_to(floats);
  auto take = [&](size_t count) { return std::exchange(free, free + count); };
  for (size_t i = 0; i < run.maps.size(); i++)
    run.maps[i].data = take(run.block_size(int(i)) * run.maps[i].bands * run.chunks);
  run.zeros = static_cast<float*>(std::memset(take(zeros), 0, zeros * sizeof(float)));

  std::vector<std::thread> helpers;
  helpers.reserve(threads - 1);
  try {
    for (int i = 1; i < threads; i++)
      helpers.emplace_back(work, std::ref(run), std::cref(*engine.kernels), std::cref(order), take(scratch));
  } catch (const std::system_error&) {
    // The system gives no further thread: the threads so far do all the work.
  }
  work(run, *engine.kernels, order, take(scratch));
  for (std::thread& helper : helpers) helper.join();
  return run.finite;
}

}  // namespace

// Version of this interface. Raise by one with every change of a function below or of the order of the weights.
EXPORT int dsclora_native_version() { return 1; }

// Open a network. Returns null without memory, or if the CPU cannot run the kernels named `cpu`.
//
// mean, range   the network reads (pixel in [0, 1] - mean) * range
// weights       one tensor after the other, every kernel (outputs, inputs, 3, 3) followed by its bias: conv_1; c1, c2
//               and c3 of each block; conv_2 folded into conv_cat, followed by conv_cat (channels, 3 * channels) for
//               conv_1, the first block and the last activation, then by the bias of the sum; the upsampler
// cpu           avx512, avx2, neon or portable; empty for the fastest
EXPORT Engine* dsclora_native_open(int channels, int blocks, int scale, const float* mean, float range,
                                   const double* weights, const char* cpu) {
  const Kernels* kernels = choose_kernels(cpu);
  if (!kernels) return nullptr;
  try {
    Network network = build_network(channels, blocks, scale, mean, range, weights, kernels->outputs);
    return new Engine{kernels, std::move(network), {}, {}};
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

EXPORT const char* dsclora_native_cpu(const Engine* engine) { return engine->kernels->name; }

EXPORT void dsclora_native_close(Engine* engine) { delete engine; }

// Upscale a picture (height, width, channels) to (scale * height, scale * width, channels), both without gaps.
//
// type       of the pixels, in and out: 0 uint8, 1 uint16, 2 float32
// channels   3 or 1
// low, high  values of black and white
// limited    1 to limit the result to the range from `low` to `high`; whole numbers must be limited
//
// Returns 0, 1 without memory, or 2 if the result holds NaN or infinity.
EXPORT int dsclora_native_upscale(Engine* engine, const void* in, void* out, int height, int width, int type,
                                  int channels, float low, float high, int limited, int threads) {
  try {
    const Picture picture{in, out, PixelType(type), channels, low, high, limited != 0};
    return upscale(*engine, picture, height, width, threads) ? 0 : 2;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}
