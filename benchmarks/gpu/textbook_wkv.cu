// Bi-WKV as a first CUDA kernel would have it: a thread for each batch item and channel walks all tokens, once from
// either side. What bench_cuda.py compares bi_wkv.cu with; nothing else uses it.
//
// What one walk found stays in the output's memory for the other, so no other memory is taken. Macros that the
// compiler is given: REAL, float or double; LANES, the threads of a block. Nothing is included, as NVRTC needs it.

#define DEVICE __device__ __forceinline__
#define KERNEL extern "C" __global__ void __launch_bounds__(LANES)

typedef long long Long;

DEVICE float exponential(float x) { return expf(x); }
DEVICE double exponential(double x) { return exp(x); }
DEVICE float logarithm(float x) { return logf(x); }
DEVICE double logarithm(double x) { return log(x); }
DEVICE REAL larger(REAL a, REAL b) { return a > b ? a : b; }

constexpr REAL LOW = (REAL)-1e30;  // log of an empty sum: finite, so that no difference of two of them is NaN

// The tokens on one side of a token: numerator and denominator, both divided by e^top.
struct Sums {
  REAL top, num, den;
  DEVICE void add(REAL k, REAL v, REAL w) {
    REAL before = top - w;
    top = larger(before, k);
    REAL a = exponential(before - top), e = exponential(k - top);
    num = a * num + e * v;
    den = a * den + e;
  }
};

// The outputs on one side of a token: sums of g / D and g y / D, D the denominator, and both again with each output
// weighted by its distance; all divided by e^top.
struct Flows {
  REAL top, g, gy, far_g, far_gy;
  DEVICE void add(REAL logden, REAL x, REAL xy, REAL w) {
    REAL before = top - w;
    top = larger(before, -logden);
    REAL a = exponential(before - top), e = exponential(-logden - top);
    far_g = a * (far_g + g);
    far_gy = a * (far_gy + gy);
    g = a * g + e * x;
    gy = a * gy + e * xy;
  }
};

// y and the logarithm of its denominator.
KERNEL textbook_forward(const REAL* __restrict__ w, const REAL* __restrict__ u, const REAL* __restrict__ k,
                        const REAL* __restrict__ v, REAL* __restrict__ y, REAL* __restrict__ logden, Long B, Long T,
                        Long C) {
  Long thread = (Long)blockIdx.x * LANES + threadIdx.x;
  if (thread >= B * C) return;
  Long c = thread % C, base = thread / C * T * C + c;
  Sums after{LOW, 0, 0}, before{LOW, 0, 0};
  for (Long t = T - 1; t >= 0; --t) {  // the later tokens: their mean, and the logarithm of their sum
    Long i = base + t * C;
    y[i] = after.den > 0 ? after.num / after.den : 0;
    logden[i] = after.den > 0 ? after.top + logarithm(after.den) : LOW;
    after.add(k[i], v[i], w[c]);
  }
  for (Long t = 0; t < T; ++t) {
    Long i = base + t * C;
    REAL later = logden[i], own = u[c] + k[i], top = larger(larger(before.top, later), own);
    REAL a = exponential(before.top - top), b = exponential(later - top), o = exponential(own - top);
    REAL den = a * before.den + b + o;
    y[i] = (a * before.num + b * y[i] + o * v[i]) / den;
    logden[i] = top + logarithm(den);
    before.add(k[i], v[i], w[c]);
  }
}

// Gradients of k and v, and those of w and u of every batch item, (B, C).
KERNEL textbook_backward(const REAL* __restrict__ w, const REAL* __restrict__ u, const REAL* __restrict__ k,
                         const REAL* __restrict__ v, const REAL* __restrict__ y, const REAL* __restrict__ logden,
                         const REAL* __restrict__ g, REAL* __restrict__ dw, REAL* __restrict__ du,
                         REAL* __restrict__ dk, REAL* __restrict__ dv, Long B, Long T, Long C) {
  Long thread = (Long)blockIdx.x * LANES + threadIdx.x;
  if (thread >= B * C) return;
  Long c = thread % C, base = thread / C * T * C + c;
  Flows after{LOW, 0, 0, 0, 0}, before{LOW, 0, 0, 0, 0};
  REAL sum_w = 0, sum_u = 0;
  for (Long t = T - 1; t >= 0; --t) {
    Long i = base + t * C;
    REAL e = exponential(k[i] + after.top);
    dv[i] = e * after.g;
    dk[i] = e * after.gy;
    sum_w -= e * (v[i] * after.far_g - after.far_gy);
    after.add(logden[i], g[i], g[i] * y[i], w[c]);
  }
  for (Long t = 0; t < T; ++t) {
    Long i = base + t * C;
    REAL e = exponential(k[i] + before.top), o = exponential(u[c] + k[i] - logden[i]);
    REAL all_g = dv[i] + e * before.g + o * g[i], all_gy = dk[i] + e * before.gy + o * g[i] * y[i];
    sum_w -= e * (v[i] * before.far_g - before.far_gy);
    sum_u += o * g[i] * (v[i] - y[i]);
    dv[i] = all_g;
    dk[i] = v[i] * all_g - all_gy;
    before.add(logden[i], g[i], g[i] * y[i], w[c]);
  }
  dw[thread] = sum_w;
  du[thread] = sum_u;
}
