// bi_wkv.cu on a CPU: a thread for a CUDA thread, a barrier for __syncthreads. A launch runs its blocks one after the
// other, so that a function's static variables can stand for shared memory.
#include <barrier>
#include <bit>
#include <cmath>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#define __device__
#define __forceinline__ inline
#define __global__
#define __launch_bounds__(...)
#define __shared__ static

struct Index {
  unsigned x, y;
};
thread_local Index threadIdx, blockIdx, blockDim, gridDim;
std::barrier<>* block_barrier;
inline void __syncthreads() {
#ifndef WITHOUT_BARRIERS  // the test of races must find some then
  block_barrier->arrive_and_wait();
#endif
}

inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float half_to_float(unsigned short bits) { return std::bit_cast<_Float16>(bits); }
inline unsigned short float_to_half(float x) { return std::bit_cast<unsigned short>((_Float16)x); }

#ifndef SOURCE
#define SOURCE "bi_wkv.cu"
#endif
#include SOURCE

template <class... Arguments, size_t... I>
int run(void (*kernel)(Arguments...), unsigned blocks, Index block_size, const Long* arguments, size_t n,
        std::index_sequence<I...>) {
  if (n != sizeof...(Arguments)) return -1;
  std::barrier<> barrier(block_size.x * block_size.y);
  block_barrier = &barrier;
  auto work = [&](unsigned x, unsigned y) {
    threadIdx = {x, y};
    blockDim = block_size;
    gridDim = {blocks, 1};
    for (unsigned block = 0; block < blocks; ++block) {
      blockIdx = {block, 0};
      kernel((Arguments)arguments[I]...);
      barrier.arrive_and_wait();
    }
  };
  std::vector<std::thread> threads;
  for (unsigned y = 0; y < block_size.y; ++y) {
    for (unsigned x = 0; x < block_size.x; ++x) threads.emplace_back(work, x, y);
  }
  for (auto& thread : threads) thread.join();
  return 0;
}

template <class... Arguments>
int run(void (*kernel)(Arguments...), unsigned blocks, Index block_size, const Long* arguments, size_t n) {
  return run(kernel, blocks, block_size, arguments, n, std::index_sequence_for<Arguments...>());
}

// 0, or -1 for a wrong number of arguments, or -2 for an unknown name. EACH lists the kernels' names.
extern "C" int launch(const char* name, unsigned blocks, unsigned lanes, unsigned segments, const Long* arguments,
                      size_t n) {
#define TRY(kernel) \
  if (!strcmp(name, #kernel)) return run(kernel, blocks, {lanes, segments}, arguments, n);
  EACH(TRY)
  return -2;
}
