// Bi-WKV on a GPU, forward and backward. Compiled at first use by NVRTC alone, so nothing is included; the
// tests compile the same file as C++20 for the CPU.
//
// A thread walks one *segment* of TOKENS tokens of one channel. blockDim.y segments, one below the other, are a *chunk*,
// which is a block's; blockDim.x neighbouring channels lie side by side, so that a warp reads neighbouring addresses.
// What a token has to know of the tokens on one of its sides is a `State`; states of neighbouring stretches combine
// associatively. So there are three steps, of which the first two fall away where one chunk holds all tokens:
//   summaries  every chunk's state as its neighbours will see it, on either side
//   carries    these, summed up over the chunks: what comes into each chunk from either side
//   forward, backward  each chunk again, starting from what comes in
// Between segments every sum has an exponent of its own. Inside a segment one exponent does for all sums: each step is a
// multiplication by the decay and an addition. Where the exponents lie too far apart for that, a thread takes the
// general way, which is longer, and exact for any input.
// Logarithms are to base 2, as the hardware's are. No sum is made with atomics: two runs agree bit by bit.
//
// Macros that the compiler is given: IO, the type of k, v, y and their gradients in memory (float, double, Half,
// BFloat16); REAL, the type of everything else (float or double); TOKENS, a segment's tokens; THREADS, a block's most.

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS, 1)

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
// x, of which the compiler does not know that it is x: so it computes anew what follows from it, and keeps nothing.
DEVICE float anew(float x) {
  asm volatile("" : "+f"(x));
  return x;
}
DEVICE double anew(double x) {
  asm volatile("" : "+d"(x));
  return x;
}
DEVICE unsigned anew(unsigned x) {
  asm volatile("" : "+r"(x));
  return x;
}
#else
template <class X>
DEVICE X anew(X x) { return x; }
DEVICE float load(Half x) { return half_to_float(x.bits); }
DEVICE void store(Half& to, float x) { to.bits = float_to_half(x); }
#endif

DEVICE float exp_2(float x) { return exp2f(x); }
DEVICE double exp_2(double x) { return exp2(x); }
DEVICE float log_2(float x) { return log2f(x); }
DEVICE double log_2(double x) { return log2(x); }
DEVICE float larger(float a, float b) { return fmaxf(a, b); }
DEVICE double larger(double a, double b) { return fmax(a, b); }
DEVICE float smaller(float a, float b) { return fminf(a, b); }
DEVICE double smaller(double a, double b) { return fmin(a, b); }

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
  DEVICE Keys from(Long i) const { return {k + i, v + i}; }
};

// and the outputs, which the gradients sum over: with D the denominator, g / D and gy / D where gy = g y - glogden.
// sign is that of D and stands in the published variant only; it and glogden may be null, for 1 and 0.
template <class X>
struct Outputs {
  const X *y, *g;
  const REAL *logden, *glogden, *sign;
  DEVICE State<2> operator[](Long i) const {
    REAL x = load(g[i]), h = x * load(y[i]) - (glogden ? glogden[i] : 0), s = sign ? sign[i] : 1;
    return {-logden[i] * LOG2E, {x * s, h * s}};
  }
  DEVICE Outputs from(Long i) const {
    return {y + i, g + i, logden + i, glogden ? glogden + i : nullptr, sign ? sign + i : nullptr};
  }
};

// A token as a state of N sums; those that are weighted with the distance begin at 0.
template <int N, class Tokens>
DEVICE State<N> single(const Tokens& tokens, Long i) {
  State<2> token = tokens[i];
  State<N> s = empty<N>();
  s.top = token.top;
  s.sum[0] = token.sum[0];
  s.sum[1] = token.sum[1];
  return s;
}

// ---------------------------------------------------------------------------------------------- inside a segment

constexpr REAL SPREAD = 60;  // of exponents below one common exponent: 2^-60 is nothing, and far from underflow
constexpr REAL DECAY = 20;   // of a segment as a whole; also growth, where w < 0
constexpr int HALF = (TOKENS + 1) / 2;

// A segment's tokens in registers: both sums of each, divided by 2^top, with one top for all.
template <int N>
struct Segment {
  REAL top, lowest, decay;  // the largest and the smallest exponent; the factor of one token's distance
  bool plain;               // whether one exponent does for all
  REAL sum[TOKENS][2];

  // All are read before the first is used, so that many reads are under way at a time. Tokens past the end weigh
  // nothing, and so do those with k = -inf; neither counts for `lowest`.
  template <class Tokens>
  DEVICE Segment(const Tokens& tokens, int count, unsigned C, REAL w) {
    State<2> token[TOKENS];
#pragma unroll
    for (int j = 0; j < TOKENS; ++j) {
      token[j] = {2 * LOW, {0, 0}};
      if (j < count) token[j] = tokens[j * C];
    }
    top = LOW;
    lowest = -LOW;
#pragma unroll
    for (int j = 0; j < TOKENS; ++j) {
      top = larger(top, token[j].top);
      lowest = token[j].top > LOW ? smaller(lowest, token[j].top) : lowest;
    }
#pragma unroll
    for (int j = 0; j < TOKENS; ++j) {
      REAL e = exp_2(token[j].top - top);
      sum[j][0] = e * token[j].sum[0];
      sum[j][1] = e * token[j].sum[1];
    }
    decay = exp_2(-w);
    REAL d = w * TOKENS;
    plain = d < DECAY && d > -DECAY && top - lowest < SPREAD;
  }

  // One token further away, then token j beside it. The derivative of decay^n with respect to -w is n decay^n.
  DEVICE void step(REAL (&s)[N], int j) const {
    s[0] *= decay;
    s[1] *= decay;
    if (N == 4) {
      s[N - 2] = decay * s[N - 2] + s[0];
      s[N - 1] = decay * s[N - 1] + s[1];
    }
    s[0] += sum[j][0];
    s[1] += sum[j][1];
  }

  // A state's sums, divided by 2^top; where they are too large for that they are not used.
  DEVICE void scaled(const State<N>& from, REAL (&to)[N]) const {
    REAL e = exp_2(smaller(from.top - top, SPREAD));
    for (int i = 0; i < N; ++i) to[i] = e * from.sum[i];
  }

  // The state that comes in from the right, brought to the right end of the tokens from `begin` on that are walked
  // next. The way there is walked once more for the left half, as keeping it would take as many registers again.
  DEVICE void come(REAL (&right)[N], int begin) const {
    for (int i = 0; i < N; ++i) right[i] = anew(right[i]);
#pragma unroll
    for (int j = TOKENS - 1; j >= 0; --j) {
      if (j >= begin + HALF) step(right, j);
    }
  }

  // Whether that can be said of the states on both sides, and of the tokens themselves with the bonus.
  DEVICE bool fits(const State<N>& before, const State<N>& after, REAL bonus) const {
    return plain && before.top - top < SPREAD && after.top - top < SPREAD && bonus < SPREAD &&
           lowest + smaller(bonus, (REAL)0) - top > -SPREAD;
  }
};

// Both sums over a segment: `before` as the token after it sees them, `after` as the one before it does.
template <int N, class Tokens>
DEVICE void summarise(const Segment<N>& segment, const Tokens& tokens, int count, unsigned C, REAL w, State<N>& before,
                      State<N>& after) {
  before = after = empty<N>();
  if (segment.plain) {
    before.top = after.top = segment.top;
#pragma unroll
    for (int j = 0; j < TOKENS; ++j) segment.step(before.sum, j);
#pragma unroll
    for (int j = TOKENS - 1; j >= 0; --j) segment.step(after.sum, j);
  } else {
#pragma unroll 1
    for (int j = 0; j < count; ++j) {
      State<N> token = single<N>(tokens, (Long)j * C);
      before = moved(before, 1, w) + token;
      after = after + moved(token, j, w);
    }
    before = moved(before, TOKENS - count, w);
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
DEVICE Place place(const REAL* w, Long T, Long C, Long chunks, Long length = TOKENS, bool last_first = false) {
  unsigned block = last_first ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
  unsigned tiles = ((unsigned)C + blockDim.x - 1) / blockDim.x, row = block / tiles;
  Place p;
  p.b = row / (unsigned)chunks;
  p.chunk = row % (unsigned)chunks;
  p.first = (p.chunk * blockDim.y + threadIdx.y) * length;
  p.c = (Long)(block % tiles) * blockDim.x + threadIdx.x;
  p.inside = p.c < C;
  p.c = p.inside ? p.c : C - 1;  // a thread without a channel reads the last one's, and writes nothing
  p.base = p.b * T * C + p.c;
  p.w = w[p.c] * LOG2E;
  return p;
}

// How many tokens the segment at a place has.
DEVICE int count_tokens(const Place& p, Long T) {
  Long rest = T - p.first;
  return rest <= 0 ? 0 : rest < TOKENS ? (int)rest : TOKENS;
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

// Every segment's states become those of all segments up to it (`before`) and from it on (`after`), its own with them;
// `length` tokens are a segment. In the step with n a sum over n segments becomes one over 2 n, by that n rows away.
template <int N>
DEVICE void scan(State<N> (&shared)[2][THREADS], State<N>& before, State<N>& after, REAL length, REAL w) {
  unsigned x = blockDim.x, rows = blockDim.y, y = threadIdx.y, here = y * x + threadIdx.x;
#pragma unroll 1
  for (unsigned n = 1; n < rows; n *= 2) {
    shared[0][here] = before;
    shared[1][here] = after;
    __syncthreads();
    if (y >= n) before = moved(shared[0][here - n * x], n * length, w) + before;
    if (y + n < rows) after = moved(shared[1][here + n * x], n * length, w) + after;
    __syncthreads();
  }
}

// From the states of the block's segments to what comes into each of them from either side; `before` and `after` come
// in as the one and leave as the other.
template <int N>
DEVICE void exchange(State<N>& before, State<N>& after, const State<N>& into_first, const State<N>& into_last,
                     REAL length, REAL w) {
  __shared__ State<N> shared[2][THREADS];
  unsigned x = blockDim.x, rows = blockDim.y, y = threadIdx.y, here = y * x + threadIdx.x;
  scan<N>(shared, before, after, length, w);
  shared[0][here] = before;
  shared[1][here] = after;
  __syncthreads();
  before = moved(into_first, y * length, w);
  after = moved(into_last, (rows - 1 - y) * length, w);
  if (y > 0) before = before + shared[0][here - x];
  if (y + 1 < rows) after = after + shared[1][here + x];
}

// ---------------------------------------------------------------------------------------------- chunk by chunk

template <int N, class Tokens>
DEVICE void chunk_summaries(const Tokens& all, const REAL* w, REAL* states, Long T, Long C, Long chunks) {
  __shared__ State<N> shared[2][THREADS];
  Place p = place(w, T, C, chunks);
  int count = count_tokens(p, T);
  Tokens tokens = all.from(p.base + p.first * C);
  State<N> before, after;
  summarise<N>(Segment<N>(tokens, count, C, p.w), tokens, count, C, p.w, before, after);
  scan<N>(shared, before, after, TOKENS, p.w);
  if (!p.inside) return;
  if (threadIdx.y + 1 == blockDim.y) write<N>(at<N>(states, p.b * chunks + p.chunk, 0, C, p.c), C, before);
  if (threadIdx.y == 0) write<N>(at<N>(states, p.b * chunks + p.chunk, 1, C, p.c), C, after);
}

// What comes into the place's segment from either side, from the segments' states and, unless null, the chunks'.
template <int N>
DEVICE void exchange_all(State<N>& before, State<N>& after, REAL* states, Long chunks, Long C, const Place& p) {
  State<N> into_first = empty<N>(), into_last = empty<N>();
  if (states) {
    into_first = read<N>(at<N>(states, p.b * chunks + p.chunk, 0, C, p.c), C);
    into_last = read<N>(at<N>(states, p.b * chunks + p.chunk, 1, C, p.c), C);
  }
  exchange<N>(before, after, into_first, into_last, TOKENS, p.w);
}

// Every chunk's state is replaced by what comes into the chunk. One block for all chunks of a batch item: a thread
// walks a run of them, and the runs are joined as the segments are elsewhere; `length` tokens are a chunk.
template <int N>
DEVICE void chunk_carries(const REAL* w, REAL* states, Long C, Long chunks, Long length) {
  Place p = place(w, 0, C, 1);
  Long run = (chunks + blockDim.y - 1) / blockDim.y, first = threadIdx.y * run;
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
                         REAL* __restrict__ states, Long T, Long C, Long chunks) {
  chunk_summaries<2>(Keys<IO>{k, v}, w, states, T, C, chunks);
}

KERNEL backward_summaries(const REAL* __restrict__ w, const IO* __restrict__ y, const REAL* __restrict__ logden,
                          const IO* __restrict__ g, const REAL* __restrict__ glogden, REAL* __restrict__ states,
                          Long T, Long C, Long chunks) {
  chunk_summaries<4>(Outputs<IO>{y, g, logden, glogden, nullptr}, w, states, T, C, chunks);
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
               Long T, Long C, Long chunks) {
  Place p = place(w, T, C, chunks, TOKENS, true);
  int count = count_tokens(p, T);
  unsigned stride = C;
  Long start = p.base + p.first * C;
  Keys<IO> keys = Keys<IO>{k, v}.from(start);
  Segment<2> segment(keys, count, stride, p.w);
  State<2> before, after;
  summarise<2>(segment, keys, count, stride, p.w, before, after);
  exchange_all<2>(before, after, states, chunks, C, p);
  if (!p.inside) return;
  REAL bonus = u[p.c] * LOG2E;
  y += start;
  if (logden) logden += start;
  if (segment.fits(before, after, bonus)) {
    REAL left[2], last[2], own = exp_2(bonus);
    segment.scaled(before, left);
    segment.scaled(after, last);
#pragma unroll
    for (int begin = 0; begin < TOKENS; begin += HALF) {
      stride = anew(stride);
      REAL right[2] = {last[0], last[1]}, later[HALF][2];
      segment.come(right, begin);
#pragma unroll
      for (int i = HALF - 1; i >= 0; --i) {  // what every token has on its right, kept;
        if (begin + i >= TOKENS) continue;
        later[i][0] = right[0];
        later[i][1] = right[1];
        segment.step(right, begin + i);
      }
#pragma unroll
      for (int i = 0; i < HALF; ++i) {  // then met from the left
        int j = begin + i;
        if (j >= TOKENS) continue;
        REAL num = left[0] + later[i][0] + own * segment.sum[j][0];
        REAL den = left[1] + later[i][1] + own * segment.sum[j][1];
        if (j < count) {
          store(y[j * stride], num * (1 / den));
          if (logden) logden[j * stride] = (segment.top + log_2(den)) * LN2;
        }
        segment.step(left, j);
      }
    }
  } else {
    State<2> later[TOKENS];
#pragma unroll 1
    for (int j = count - 1; j >= 0; --j) {
      later[j] = after;
      after = moved(after, 1, p.w) + keys[(Long)j * C];
    }
#pragma unroll 1
    for (int j = 0; j < count; ++j) {
      State<2> token = keys[(Long)j * C], own = token;
      own.top += bonus;
      State<2> s = before + later[j] + own;
      store(y[j * C], s.sum[0] / s.sum[1]);
      if (logden) logden[j * C] = (s.top + log_2(s.sum[1])) * LN2;
      before = moved(before, 1, p.w) + token;
    }
  }
}

// The block's sums of the gradients of w and u over its tokens, in a fixed order: row `row` of `partial`, (rows, 2, C).
DEVICE void sum_block(REAL dw, REAL du, REAL* partial, Long row, Long C, const Place& p) {
  __shared__ REAL shared[2][THREADS];
  unsigned x = blockDim.x, rows = blockDim.y, y = threadIdx.y, here = y * x + threadIdx.x;
  for (unsigned n = 1;; n *= 2) {  // every 2 n-th row takes in the one n rows below
    shared[0][here] = dw;
    shared[1][here] = du;
    __syncthreads();
    if (n >= rows) break;
    if (y % (2 * n) == 0 && y + n < rows) {
      dw += shared[0][here + n * x];
      du += shared[1][here + n * x];
    }
    __syncthreads();
  }
  if (y == 0 && p.inside) {
    partial[row * 2 * C + p.c] = dw;
    partial[(row * 2 + 1) * C + p.c] = du;
  }
}

// With E_ti the weight of token i in the output t: dv_i = sum_t E_ti g_t / D_t and dk_i = v_i dv_i - sum_t E_ti gy_t /
// D_t; each pair (t, i) gives w the same product times -(|t - i| - 1), which the states carry along.
KERNEL backward(const REAL* __restrict__ w, const REAL* __restrict__ u, const IO* __restrict__ k,
                const IO* __restrict__ v, const IO* __restrict__ y, const REAL* __restrict__ logden,
                const IO* __restrict__ g, const REAL* __restrict__ glogden, REAL* __restrict__ states,
                IO* __restrict__ dk, IO* __restrict__ dv, REAL* __restrict__ partial, Long T, Long C, Long chunks) {
  Place p = place(w, T, C, chunks, TOKENS, true);
  int count = count_tokens(p, T);
  unsigned stride = C;
  Long start = p.base + p.first * C;
  Outputs<IO> outputs = Outputs<IO>{y, g, logden, glogden, nullptr}.from(start);
  Segment<4> segment(outputs, count, stride, p.w);
  State<4> before, after;
  summarise<4>(segment, outputs, count, stride, p.w, before, after);
  exchange_all<4>(before, after, states, chunks, C, p);
  // As the outputs' denominators are in the states already, what comes from either side is simply added.
  Keys<IO> keys = Keys<IO>{k, v}.from(start);
  dk += start;
  dv += start;
  REAL bonus = u[p.c] * LOG2E, dw = 0, du = 0;
  if (segment.fits(before, after, bonus)) {
    REAL left[4], last[4], own = exp_2(bonus);
    segment.scaled(before, left);
    segment.scaled(after, last);
#pragma unroll
    for (int begin = 0; begin < TOKENS; begin += HALF) {
      stride = anew(stride);
      REAL right[4] = {last[0], last[1], last[2], last[3]}, later[HALF][2], e[HALF], value[HALF];
#pragma unroll
      for (int i = 0; i < HALF; ++i) {
        e[i] = value[i] = 0;
        if (begin + i >= TOKENS || begin + i >= count) continue;
        State<2> token = keys[(begin + i) * stride];
        e[i] = exp_2(token.top + segment.top);
        value[i] = token.sum[0];
      }
      segment.come(right, begin);
#pragma unroll
      for (int i = HALF - 1; i >= 0; --i) {
        if (begin + i >= TOKENS) continue;
        later[i][0] = right[0];
        later[i][1] = right[1];
        dw -= e[i] * (value[i] * right[2] - right[3]);
        segment.step(right, begin + i);
      }
#pragma unroll
      for (int i = 0; i < HALF; ++i) {
        int j = begin + i;
        if (j >= TOKENS) continue;
        REAL own_g = own * segment.sum[j][0], own_gy = own * segment.sum[j][1];
        REAL all_g = e[i] * (left[0] + later[i][0] + own_g), all_gy = e[i] * (left[1] + later[i][1] + own_gy);
        dw -= e[i] * (value[i] * left[2] - left[3]);
        du += e[i] * (value[i] * own_g - own_gy);
        if (j < count && p.inside) {
          store(dv[j * stride], all_g);
          store(dk[j * stride], value[i] * all_g - all_gy);
        }
        segment.step(left, j);
      }
    }
  } else {
    REAL later[TOKENS][2];
#pragma unroll 1
    for (int j = count - 1; j >= 0; --j) {
      State<2> token = keys[(Long)j * C];
      REAL e = exp_2(token.top + after.top);
      later[j][0] = e * after.sum[0];
      later[j][1] = e * after.sum[1];
      dw -= e * (token.sum[0] * after.sum[2] - after.sum[3]);
      after = moved(after, 1, p.w) + single<4>(outputs, (Long)j * C);
    }
#pragma unroll 1
    for (int j = 0; j < count; ++j) {
      State<2> token = keys[(Long)j * C];
      State<4> output = single<4>(outputs, (Long)j * C);
      REAL e = exp_2(token.top + before.top), o = exp_2(bonus + token.top + output.top), value = token.sum[0];
      REAL all_g = later[j][0] + e * before.sum[0] + o * output.sum[0];
      REAL all_gy = later[j][1] + e * before.sum[1] + o * output.sum[1];
      dw -= e * (value * before.sum[2] - before.sum[3]);
      du += o * (value * output.sum[0] - output.sum[1]);
      if (p.inside) {
        store(dv[(Long)j * C], all_g);
        store(dk[(Long)j * C], value * all_g - all_gy);
      }
      before = moved(before, 1, p.w) + output;
    }
  }
  sum_block(dw, du, partial, p.b * chunks + p.chunk, C, p);
}

// dw and du, both (C), from the blocks' (rows, 2, C), in a fixed order.
KERNEL sum_rows(const REAL* __restrict__ partial, REAL* __restrict__ dw, REAL* __restrict__ du, Long rows, Long C) {
  __shared__ REAL shared[THREADS];
  unsigned x = blockDim.x, here = threadIdx.y * x + threadIdx.x;
  Long column = (Long)blockIdx.x * x + threadIdx.x;
  REAL sum = 0;
  if (column < 2 * C) {
    for (Long row = threadIdx.y; row < rows; row += blockDim.y) sum += partial[row * 2 * C + column];
  }
  shared[here] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && column < 2 * C) {
    for (unsigned i = 1; i < blockDim.y; ++i) sum += shared[here + i * x];
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
  Place p = place(w, T, C, (segments + blockDim.y - 1) / blockDim.y, length);
  if (p.first >= T || !p.inside) return;
  State<N> before = empty<N>(), after = empty<N>();
  for (Long j = 0; j < length; ++j) {  // of any length, so not in registers
    State<N> token = p.first + j < T ? single<N>(tokens, p.base + (p.first + j) * C) : empty<N>();
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
  Place p = place(w, T, C, (segments + blockDim.y - 1) / blockDim.y, length);
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
  Long chunks = (segments + blockDim.y - 1) / blockDim.y;
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
      s = before + single<4>(outputs, i);
    }
    State<4> after = moved(read<4>(at<4>(states, segment, 1, C, p.c), C), 1, p.w), leak = empty<4>();
    REAL bonus = u[p.c] * LOG2E, leaks = -expm1(w[p.c]);
    for (Long t = last - 1; t >= p.first; --t) {
      Long i = p.base + t * C;
      State<4> token = single<4>(outputs, i);
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
