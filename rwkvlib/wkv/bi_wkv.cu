// Bi-WKV on a GPU, forward and backward. Compiled at first use by NVRTC alone, so nothing is included; the
// tests compile the same file as C++20 for the CPU.
//
// A thread walks one *segment* of tokens of one channel. SEGMENTS of them, one below the other, are a *chunk*, which
// is a block's; LANES neighbouring channels lie side by side, so that a warp reads neighbouring addresses. What a
// token has to know of the tokens on one of its sides is a `State`; states of neighbouring stretches combine
// associatively. So there are three steps, of which the first two fall away where one chunk holds all tokens:
//   summaries  every chunk's state as its neighbours will see it, on either side
//   carries    these, summed up over the chunks: what comes into each chunk from either side
//   forward, backward  each chunk again, starting from what comes in
// Logarithms are to base 2, as the hardware's are. No sum is made with atomics: two runs agree bit by bit.
//
// Macros that the compiler is given: IO, the type of k, v, y and their gradients in memory (float, double, Half,
// BFloat16); REAL, the type of everything else (float or double); LANES, SEGMENTS, and TOKENS, a segment's longest.

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void __launch_bounds__(LANES * SEGMENTS, sizeof(REAL) == 4 ? 2 : 1)

typedef long long Long;

struct Half {
  unsigned short bits;
};
struct BFloat16 {
  unsigned short bits;
};

DEVICE float load(float x) { return x; }
DEVICE double load(double x) { return x; }
DEVICE float load(BFloat16 x) { return __uint_as_float((unsigned)x.bits << 16); }
DEVICE void store(float& to, float x) { to = x; }
DEVICE void store(double& to, double x) { to = x; }
DEVICE void store(BFloat16& to, float x) {
  unsigned bits = __float_as_uint(x);
  bool nan = (bits & 0x7fffffff) > 0x7f800000;  // the rounding below could carry it over into infinity or zero
  to.bits = nan ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to nearest, ties to even
}
#ifdef __CUDACC__
DEVICE float load(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
DEVICE void store(Half& to, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }
#else
DEVICE float load(Half x) { return half_to_float(x.bits); }
DEVICE void store(Half& to, float x) { to.bits = float_to_half(x); }
#endif

DEVICE float exp_2(float x) { return exp2f(x); }
DEVICE double exp_2(double x) { return exp2(x); }
DEVICE float log_2(float x) { return log2f(x); }
DEVICE double log_2(double x) { return log2(x); }

constexpr REAL LN2 = (REAL)0.693147180559945309, LOG2E = (REAL)1.442695040888963407;
constexpr REAL LOW = (REAL)-1e30;  // log of an empty sum: finite, so that no difference of two of them is NaN

// ---------------------------------------------------------------------------------------------- states

// Sums over a stretch of tokens, divided by 2^top; each token has decayed by its distance from the stretch's one end.
// Forward, N = 2: the numerator and the denominator. Backward, N = 4: what flows back through these two, and both
// again with every token weighted by its distance, which is the derivative with respect to -w.
template <int N>
struct State {
  REAL top, sum[N];
};

template <int N>
DEVICE State<N> empty() {
  State<N> s;
  s.top = LOW;
  for (int i = 0; i < N; ++i) s.sum[i] = 0;
  return s;
}

// The state as seen from n tokens further away.
template <int N>
DEVICE State<N> moved(State<N> s, REAL n, REAL w) {
  s.top -= n * w;
  if (N == 4) {
    s.sum[N - 2] += n * s.sum[0];
    s.sum[N - 1] += n * s.sum[1];
  }
  return s;
}

template <int N>
DEVICE State<N> operator+(const State<N>& a, const State<N>& b) {
  REAL z = a.top - b.top;
  REAL e = exp_2(z < 0 ? z : -z);  // of the two factors one is 1, so one exponential does
  REAL p = z < 0 ? e : 1, q = z < 0 ? 1 : e;
  State<N> s;
  s.top = z < 0 ? b.top : a.top;
  for (int i = 0; i < N; ++i) s.sum[i] = p * a.sum[i] + q * b.sum[i];
  return s;
}

// Single tokens as states: those that the outputs sum over,
template <class X>
struct Keys {
  const X *k, *v;
  DEVICE State<2> operator[](Long i) const { return {load(k[i]) * LOG2E, {load(v[i]), 1}}; }
};

// and the outputs, which the gradients sum over: with D the denominator, g / D and gy / D where gy = g y - glogden.
// sign is that of D and stands in the published variant only; it and glogden may be null, for 1 and 0.
template <class X>
struct Outputs {
  const X *y, *g;
  const REAL *logden, *glogden, *sign;
  DEVICE State<4> operator[](Long i) const {
    REAL x = load(g[i]), h = x * load(y[i]) - (glogden ? glogden[i] : 0), s = sign ? sign[i] : 1;
    return {-logden[i] * LOG2E, {x * s, h * s, 0, 0}};
  }
};

// A segment's tokens into registers, all of them before the first is used, so that many reads are under way at a time.
// Tokens past the end are empty, and are counted all the same.
template <int N, class Tokens>
DEVICE void load_segment(const Tokens& tokens, State<N> (&token)[TOKENS], Long first, Long length, Long T, Long C,
                         Long base) {
#pragma unroll
  for (int j = 0; j < TOKENS; ++j) {
    token[j] = j < length && first + j < T ? tokens[base + (first + j) * C] : empty<N>();
  }
}

// Both sums over a segment: `before` as the token after it sees them, `after` as the one before it does.
template <int N>
DEVICE void summarise(const State<N> (&token)[TOKENS], Long length, REAL w, State<N>& before, State<N>& after) {
  before = after = empty<N>();
#pragma unroll
  for (int j = 0; j < TOKENS; ++j) {
    if (j >= length) continue;
    before = moved(before, 1, w) + token[j];
    after = after + moved(token[j], j, w);
  }
}

// ---------------------------------------------------------------------------------------------- a thread's place

struct Place {
  Long b, chunk, first, base, c;  // first token of the segment; base + t C is token t's element of channel c
  bool inside;                    // whether there is such a channel
  REAL w;                         // to base 2
};

// Blocks are numbered by channels, then chunks, then batch items; `length` tokens are a segment. What a kernel has read
// last may still be in the cache: the kernel after it begins there, with `last_first`.
DEVICE Place place(const REAL* w, Long T, Long C, Long chunks, Long length, bool last_first = false) {
  unsigned block = last_first ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
  unsigned tiles = (unsigned)((C + LANES - 1) / LANES), row = block / tiles;
  Place p;
  p.b = row / (unsigned)chunks;
  p.chunk = row % (unsigned)chunks;
  p.first = (p.chunk * SEGMENTS + threadIdx.y) * length;
  p.c = (Long)(block % tiles) * LANES + threadIdx.x;
  p.inside = p.c < C;
  p.c = p.inside ? p.c : C - 1;  // a thread without a channel reads the last one's, and writes nothing
  p.base = p.b * T * C + p.c;
  p.w = w[p.c] * LOG2E;
  return p;
}

// The state of a chunk on its side 0 (before) or 1 (after), one number after the other for all channels.
template <int N>
DEVICE REAL* at(REAL* states, Long chunk, int side, Long C, Long c) {
  return states + (chunk * 2 + side) * (N + 1) * C + c;
}

template <int N>
DEVICE State<N> read(const REAL* at, Long C) {
  State<N> s;
  s.top = at[0];
  for (int i = 0; i < N; ++i) s.sum[i] = at[(i + 1) * C];
  return s;
}

template <int N>
DEVICE void write(REAL* at, Long C, const State<N>& s) {
  at[0] = s.top;
  for (int i = 0; i < N; ++i) at[(i + 1) * C] = s.sum[i];
}

// From the states of the block's segments to what comes into each of them from either side; `before` and `after` come
// in as the one and leave as the other. Returned is what leaves the block: before's at the last token to the threads
// of row 0, after's at the first token to those of row 1.
template <int N>
DEVICE State<N> exchange(State<N>& before, State<N>& after, State<N> into_first, State<N> into_last, REAL length,
                         REAL w) {
  __shared__ State<N> shared[2][SEGMENTS][LANES];
  int x = threadIdx.x, y = threadIdx.y;
  shared[0][y][x] = before;
  shared[1][y][x] = after;
  __syncthreads();
  State<N> s = empty<N>();
  if (y < 2) {
    s = y == 0 ? into_first : into_last;
    for (int i = 0; i < SEGMENTS; ++i) {
      State<N>& segment = shared[y][y == 0 ? i : SEGMENTS - 1 - i][x];
      State<N> own = segment;
      segment = s;
      s = moved(s, length, w) + own;
    }
  }
  __syncthreads();
  before = shared[0][y][x];
  after = shared[1][y][x];
  return s;
}

// ---------------------------------------------------------------------------------------------- chunk by chunk

template <int N, class Tokens>
DEVICE void chunk_summaries(const Tokens& tokens, const REAL* w, REAL* states, Long T, Long C, Long chunks,
                            Long length) {
  Place p = place(w, T, C, chunks, length);
  State<N> token[TOKENS], before, after;
  load_segment<N>(tokens, token, p.first, length, T, C, p.base);
  summarise<N>(token, length, p.w, before, after);
  State<N> all = exchange<N>(before, after, empty<N>(), empty<N>(), length, p.w);
  if (threadIdx.y < 2 && p.inside) write<N>(at<N>(states, p.b * chunks + p.chunk, threadIdx.y, C, p.c), C, all);
}

// Every chunk's state is replaced by what comes into the chunk. One block for all chunks of a batch item: a thread
// walks a run of them, and the runs are joined as the segments are elsewhere; `length` tokens are a chunk.
template <int N>
DEVICE void chunk_carries(const REAL* w, REAL* states, Long C, Long chunks, Long length) {
  Place p = place(w, 0, C, 1, 0);
  Long run = (chunks + SEGMENTS - 1) / SEGMENTS, first = threadIdx.y * run;
  State<N> before = empty<N>(), after = empty<N>();
  for (Long j = 0; j < run; ++j) {
    Long i = first + j;
    bool in = i < chunks;
    State<N> s0 = in ? read<N>(at<N>(states, p.b * chunks + i, 0, C, p.c), C) : empty<N>();
    State<N> s1 = in ? read<N>(at<N>(states, p.b * chunks + i, 1, C, p.c), C) : empty<N>();
    before = moved(before, length, p.w) + s0;
    after = after + moved(s1, j * length, p.w);
  }
  exchange<N>(before, after, empty<N>(), empty<N>(), run * length, p.w);
  for (int side = 0; side < 2; ++side) {
    State<N> s = side == 0 ? before : after;
    for (Long j = 0; j < run; ++j) {
      Long i = side == 0 ? first + j : first + run - 1 - j;
      if (i >= chunks || !p.inside) continue;
      REAL* here = at<N>(states, p.b * chunks + i, side, C, p.c);
      State<N> own = read<N>(here, C);
      write<N>(here, C, s);
      s = moved(s, length, p.w) + own;
    }
  }
}

KERNEL forward_summaries(const REAL* __restrict__ w, const IO* __restrict__ k, const IO* __restrict__ v,
                         REAL* __restrict__ states, Long T, Long C, Long chunks, Long length) {
  chunk_summaries<2>(Keys<IO>{k, v}, w, states, T, C, chunks, length);
}

KERNEL backward_summaries(const REAL* __restrict__ w, const IO* __restrict__ y, const REAL* __restrict__ logden,
                          const IO* __restrict__ g, const REAL* __restrict__ glogden, REAL* __restrict__ states,
                          Long T, Long C, Long chunks, Long length) {
  chunk_summaries<4>(Outputs<IO>{y, g, logden, glogden, nullptr}, w, states, T, C, chunks, length);
}

KERNEL forward_carries(const REAL* __restrict__ w, REAL* __restrict__ states, Long C, Long chunks, Long length) {
  chunk_carries<2>(w, states, C, chunks, length);
}

KERNEL backward_carries(const REAL* __restrict__ w, REAL* __restrict__ states, Long C, Long chunks, Long length) {
  chunk_carries<4>(w, states, C, chunks, length);
}

// y and the natural logarithm of its denominator, which is null where nobody wants it; `states` is null where there is
// one chunk.
KERNEL forward(const REAL* __restrict__ w, const REAL* __restrict__ u, const IO* __restrict__ k,
               const IO* __restrict__ v, REAL* __restrict__ states, IO* __restrict__ y, REAL* __restrict__ logden,
               Long T, Long C, Long chunks, Long length) {
  Place p = place(w, T, C, chunks, length, true);
  Keys<IO> keys{k, v};
  State<2> token[TOKENS], after[TOKENS], before, s;
  load_segment<2>(keys, token, p.first, length, T, C, p.base);
  summarise<2>(token, length, p.w, before, s);
  State<2> into_first = empty<2>(), into_last = empty<2>();
  if (states && threadIdx.y < 2) {  // only these rows' threads use them
    into_first = read<2>(at<2>(states, p.b * chunks + p.chunk, 0, C, p.c), C);
    into_last = read<2>(at<2>(states, p.b * chunks + p.chunk, 1, C, p.c), C);
  }
  exchange<2>(before, s, into_first, into_last, length, p.w);
#pragma unroll
  for (int j = TOKENS - 1; j >= 0; --j) {  // what every token has on its right, kept;
    if (j >= length) continue;
    after[j] = s;
    s = moved(s, 1, p.w) + token[j];
  }
  REAL bonus = u[p.c] * LOG2E;
#pragma unroll
  for (int j = 0; j < TOKENS; ++j) {  // then met from the left
    if (j >= length || p.first + j >= T) continue;
    REAL own = bonus + token[j].top;
    REAL top = before.top > after[j].top ? before.top : after[j].top;
    top = top > own ? top : own;
    REAL a = exp_2(before.top - top), b = exp_2(after[j].top - top), o = exp_2(own - top);
    REAL den = a * before.sum[1] + b * after[j].sum[1] + o;
    REAL num = a * before.sum[0] + b * after[j].sum[0] + o * token[j].sum[0];
    if (p.inside) {
      Long i = p.base + (p.first + j) * C;
      store(y[i], num / den);
      if (logden) logden[i] = (top + log_2(den)) * LN2;
    }
    before = moved(before, 1, p.w) + token[j];
  }
}

// The block's sums of the gradients of w and u over its tokens, in a fixed order: row `row` of `partial`, (rows, 2, C).
DEVICE void sum_block(REAL dw, REAL du, REAL* partial, Long row, Long C, const Place& p) {
  __shared__ REAL shared[2][SEGMENTS][LANES];
  shared[0][threadIdx.y][threadIdx.x] = dw;
  shared[1][threadIdx.y][threadIdx.x] = du;
  __syncthreads();
  if (threadIdx.y < 2 && p.inside) {
    REAL sum = 0;
    for (int i = 0; i < SEGMENTS; ++i) sum += shared[threadIdx.y][i][threadIdx.x];
    partial[(row * 2 + threadIdx.y) * C + p.c] = sum;
  }
}

// With E_ti the weight of token i in the output t: dv_i = sum_t E_ti g_t / D_t and dk_i = v_i dv_i - sum_t E_ti gy_t /
// D_t; each pair (t, i) gives w the same product times -(|t - i| - 1), which the states carry along.
KERNEL backward(const REAL* __restrict__ w, const REAL* __restrict__ u, const IO* __restrict__ k,
                const IO* __restrict__ v, const IO* __restrict__ y, const REAL* __restrict__ logden,
                const IO* __restrict__ g, const REAL* __restrict__ glogden, REAL* __restrict__ states,
                IO* __restrict__ dk, IO* __restrict__ dv, REAL* __restrict__ partial, Long T, Long C, Long chunks,
                Long length) {
  Place p = place(w, T, C, chunks, length, true);
  Outputs<IO> outputs{y, g, logden, glogden, nullptr};
  State<4> token[TOKENS], before, s;
  load_segment<4>(outputs, token, p.first, length, T, C, p.base);
  summarise<4>(token, length, p.w, before, s);
  State<4> into_first = empty<4>(), into_last = empty<4>();
  if (states && threadIdx.y < 2) {
    into_first = read<4>(at<4>(states, p.b * chunks + p.chunk, 0, C, p.c), C);
    into_last = read<4>(at<4>(states, p.b * chunks + p.chunk, 1, C, p.c), C);
  }
  exchange<4>(before, s, into_first, into_last, length, p.w);
  // As the outputs' denominators are in the states already, what comes from either side is simply added.
  REAL from_g[TOKENS], from_gy[TOKENS], dw = 0, du = 0;
#pragma unroll
  for (int j = TOKENS - 1; j >= 0; --j) {
    if (j >= length) continue;
    if (p.first + j < T) {
      Long i = p.base + (p.first + j) * C;
      REAL e = exp_2(load(k[i]) * LOG2E + s.top);
      from_g[j] = e * s.sum[0];
      from_gy[j] = e * s.sum[1];
      dw -= e * (load(v[i]) * s.sum[2] - s.sum[3]);
    }
    s = moved(s, 1, p.w) + token[j];
  }
  REAL bonus = u[p.c] * LOG2E;
#pragma unroll
  for (int j = 0; j < TOKENS; ++j) {
    if (j >= length || p.first + j >= T) continue;
    Long i = p.base + (p.first + j) * C;
    REAL key = load(k[i]) * LOG2E, value = load(v[i]);
    REAL e = exp_2(key + before.top), o = exp_2(bonus + key + token[j].top);
    REAL all_g = from_g[j] + e * before.sum[0] + o * token[j].sum[0];
    REAL all_gy = from_gy[j] + e * before.sum[1] + o * token[j].sum[1];
    dw -= e * (value * before.sum[2] - before.sum[3]);
    du += o * (value * token[j].sum[0] - token[j].sum[1]);
    if (p.inside) {
      store(dv[i], all_g);
      store(dk[i], value * all_g - all_gy);
    }
    before = moved(before, 1, p.w) + token[j];
  }
  sum_block(dw, du, partial, p.b * chunks + p.chunk, C, p);
}

// dw and du, both (C), from the blocks' (rows, 2, C), in a fixed order.
KERNEL sum_rows(const REAL* __restrict__ partial, REAL* __restrict__ dw, REAL* __restrict__ du, Long rows, Long C) {
  __shared__ REAL shared[SEGMENTS][LANES];
  Long column = (Long)blockIdx.x * LANES + threadIdx.x;
  REAL sum = 0;
  if (column < 2 * C) {
    for (Long row = threadIdx.y; row < rows; row += SEGMENTS) sum += partial[row * 2 * C + column];
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < 2 * C) {
    for (int i = 1; i < SEGMENTS; ++i) sum += shared[i][threadIdx.x];
    (column < C ? dw[column] : du[column - C]) = sum;
  }
}

// ---------------------------------------------------------------------------------------------- variant "published"

// The published kernel cuts the tokens into chunks of ceil(T / 32), and its weights (oracle.published_weights) depend
// on where the chunks begin. So here a segment is such a chunk, whatever its length, and a thread walks it twice,
// leaving what it found on the first way in the output's memory. The carries are made by the kernels above.

template <int N, class Tokens>
DEVICE void segment_summaries(const Tokens& tokens, const REAL* w, REAL* states, Long T, Long C, Long segments,
                              Long length) {
  Place p = place(w, T, C, (segments + SEGMENTS - 1) / SEGMENTS, length);
  if (p.first >= T || !p.inside) return;
  State<N> before = empty<N>(), after = empty<N>();
  for (Long j = 0; j < length; ++j) {  // of any length, so not in registers
    State<N> token = p.first + j < T ? tokens[p.base + (p.first + j) * C] : empty<N>();
    before = moved(before, 1, p.w) + token;
    after = after + moved(token, j, p.w);
  }
  Long segment = p.b * segments + p.first / length;
  write<N>(at<N>(states, segment, 0, C, p.c), C, before);
  write<N>(at<N>(states, segment, 1, C, p.c), C, after);
}

KERNEL published_forward_summaries(const REAL* __restrict__ w, const REAL* __restrict__ k,
                                   const REAL* __restrict__ v, REAL* __restrict__ states, Long T, Long C,
                                   Long segments, Long length) {
  segment_summaries<2>(Keys<REAL>{k, v}, w, states, T, C, segments, length);
}

KERNEL published_backward_summaries(const REAL* __restrict__ w, const REAL* __restrict__ y,
                                    const REAL* __restrict__ logden, const REAL* __restrict__ g,
                                    const REAL* __restrict__ sign, REAL* __restrict__ states, Long T, Long C,
                                    Long segments, Long length) {
  segment_summaries<4>(Outputs<REAL>{y, g, logden, nullptr, sign}, w, states, T, C, segments, length);
}

// y, the logarithm of its denominator's absolute value, and the denominator's sign.
KERNEL published_forward(const REAL* __restrict__ w, const REAL* __restrict__ u, const REAL* __restrict__ k,
                         const REAL* __restrict__ v, REAL* __restrict__ states, REAL* __restrict__ y,
                         REAL* __restrict__ logden, REAL* __restrict__ sign, Long T, Long C, Long segments,
                         Long length) {
  Place p = place(w, T, C, (segments + SEGMENTS - 1) / SEGMENTS, length);
  if (p.first >= T || !p.inside) return;
  Keys<REAL> keys{k, v};
  Long segment = p.b * segments + p.first / length, last = p.first + length < T ? p.first + length : T;
  State<2> s = read<2>(at<2>(states, segment, 1, C, p.c), C);
  for (Long t = last - 1; t >= p.first; --t) {  // the later tokens: their mean, and the logarithm of their sum
    Long i = p.base + t * C;
    y[i] = s.sum[1] > 0 ? s.sum[0] / s.sum[1] : 0;
    logden[i] = s.sum[1] > 0 ? s.top + log_2(s.sum[1]) : 2 * LOW;  // below an empty state, whose weight is 1 then
    s = moved(s, 1, p.w) + keys[i];
  }
  // The earlier ones: those of other chunks with one decay more than in the definition.
  State<2> before = moved(read<2>(at<2>(states, segment, 0, C, p.c), C), 1, p.w), leak = empty<2>();
  REAL bonus = u[p.c] * LOG2E, leaks = -expm1(w[p.c]);
  for (Long t = p.first; t < last; ++t) {
    Long i = p.base + t * C;
    State<2> token = keys[i];
    if (t > p.first) leak = moved(leak, 1, -p.w) + token;  // every token of the chunk but its first leaks, and grows
    REAL own = bonus + token.top, later = logden[i] - p.w;
    REAL top = before.top > later ? before.top : later;
    top = top > own ? top : own;
    top = top > leak.top ? top : leak.top;
    REAL a = exp_2(before.top - top), b = exp_2(later - top), l = leaks * exp_2(leak.top - top), o = exp_2(own - top);
    REAL den = a * before.sum[1] + b + l * leak.sum[1] + o;
    y[i] = (a * before.sum[0] + b * y[i] + l * leak.sum[0] + o * token.sum[0]) / den;
    logden[i] = (top + log_2(den < 0 ? -den : den)) * LN2;
    sign[i] = den < 0 ? -1 : 1;
    before = moved(before, 1, p.w) + token;
  }
}

// The derivative of published_forward (the published backward kernel is not): its weights, transposed.
KERNEL published_backward(const REAL* __restrict__ w, const REAL* __restrict__ u, const REAL* __restrict__ k,
                          const REAL* __restrict__ v, const REAL* __restrict__ y, const REAL* __restrict__ logden,
                          const REAL* __restrict__ g, const REAL* __restrict__ sign, REAL* __restrict__ states,
                          REAL* __restrict__ dk, REAL* __restrict__ dv, REAL* __restrict__ partial, Long T, Long C,
                          Long segments, Long length) {
  Long chunks = (segments + SEGMENTS - 1) / SEGMENTS;
  Place p = place(w, T, C, chunks, length);
  Outputs<REAL> outputs{y, g, logden, nullptr, sign};
  REAL dw = 0, du = 0;
  if (p.first < T && p.inside) {
    Long segment = p.b * segments + p.first / length, last = p.first + length < T ? p.first + length : T;
    State<4> s = read<4>(at<4>(states, segment, 0, C, p.c), C);
    for (Long t = p.first; t < last; ++t) {  // the earlier outputs, all with one decay more than in the definition
      Long i = p.base + t * C;
      State<4> before = moved(s, 1, p.w);
      REAL e = exp_2(k[i] * LOG2E + before.top);
      dv[i] = e * before.sum[0];
      dk[i] = e * before.sum[1];
      dw -= e * (v[i] * before.sum[2] - before.sum[3]);
      s = before + outputs[i];
    }
    State<4> after = moved(read<4>(at<4>(states, segment, 1, C, p.c), C), 1, p.w), leak = empty<4>();
    REAL bonus = u[p.c] * LOG2E, leaks = -expm1(w[p.c]);
    for (Long t = last - 1; t >= p.first; --t) {
      Long i = p.base + t * C;
      State<4> token = outputs[i];
      leak = moved(leak, 1, -p.w) + token;
      REAL key = k[i] * LOG2E, value = v[i];
      REAL e = exp_2(key + after.top), o = exp_2(bonus + key + token.top);
      REAL l = t > p.first ? exp_2(key + leak.top) : 0;
      REAL all_g = dv[i] + e * after.sum[0] + o * token.sum[0] + leaks * l * leak.sum[0];
      REAL all_gy = dk[i] + e * after.sum[1] + o * token.sum[1] + leaks * l * leak.sum[1];
      dw -= e * (value * after.sum[2] - after.sum[3]);
      dw += l * (value * (leaks * leak.sum[2] + (leaks - 1) * leak.sum[0]) - (leaks * leak.sum[3] + (leaks - 1) * leak.sum[1]));
      du += o * (value * token.sum[0] - token.sum[1]);
      dv[i] = all_g;
      dk[i] = value * all_g - all_gy;
      after = moved(after, 1, p.w) + token;
    }
  }
  sum_block(dw, du, partial, p.b * chunks + p.chunk, C, p);
}
