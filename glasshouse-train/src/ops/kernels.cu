// What the operations do between matrix products, for f32 and bf16; sums in f32, in a fixed order and by no atomics, so
// that the bits depend on nothing but the arguments. Each kernel's operation has the same formula in Rust for the CPU.

#include <cuda_bf16.h>

typedef unsigned long long u64;
typedef unsigned int u32;
typedef __nv_bfloat16 bf16;

static __device__ __forceinline__ float wide(float x) { return x; }
static __device__ __forceinline__ float wide(bf16 x) { return __bfloat162float(x); }
template <typename T> static __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) { return __float2bfloat16_rn(x); }

// Sixteen bytes, which a thread loads at once.
template <typename T> struct alignas(16) Pack {
    static constexpr u32 N = 16 / sizeof(T);
    T v[N];
};
template <typename T> static __device__ __forceinline__ bool packed(const void *p, u32 n) {
    return n % Pack<T>::N == 0 && (reinterpret_cast<u64>(p) & 15) == 0;
}

static __device__ __forceinline__ float warp_sum(float x) {
    for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(~0u, x, d);
    return x;
}

// The sum over a block, in every thread.
static __device__ float block_sum(float x) {
    __shared__ float parts[32];
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    for (u32 i = 0; i < (blockDim.x + 31) / 32; ++i) sum += parts[i];
    return sum;
}

static __device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

// Calls f(i, count of values from i on) for the packs of a row, or for each value where it cannot be read in packs.
#define FOR_PACKS(T, aligned, n)                                                                                       \
    for (u32 i = threadIdx.x * ((aligned) ? Pack<T>::N : 1); i < (n); i += blockDim.x * ((aligned) ? Pack<T>::N : 1))

template <typename T> static __device__ __forceinline__ void load(float *to, const T *from, u32 i, bool aligned) {
    if (aligned) {
        const Pack<T> p = *reinterpret_cast<const Pack<T> *>(from + i);
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) to[j] = wide(p.v[j]);
    } else {
        to[0] = wide(from[i]);
    }
}

template <typename T> static __device__ __forceinline__ void store(T *to, const float *from, u32 i, bool aligned) {
    if (aligned) {
        Pack<T> p;
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) p.v[j] = narrow<T>(from[j]);
        *reinterpret_cast<Pack<T> *>(to + i) = p;
    } else {
        to[i] = narrow<T>(from[0]);
    }
}

// A block for each row.
template <typename T> static __device__ void add_bias(T *y, const T *bias, u32 n) {
    y += (u64)blockIdx.x * n;
    const bool aligned = packed<T>(y, n) && packed<T>(bias, n);
    FOR_PACKS(T, aligned, n) {
        float v[Pack<T>::N], b[Pack<T>::N];
        load(v, y, i, aligned);
        load(b, bias, i, aligned);
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) v[j] += b[j];
        store(y, v, i, aligned);
    }
}

// The upper half of SplitMix64.
static __device__ __forceinline__ u32 hash(u64 key, u64 index) {
    u64 z = key + (index + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (u32)((z ^ (z >> 31)) >> 32);
}

template <typename T>
static __device__ void dropout(T *y, const T *x, u32 count, u64 seed, u32 threshold, float scale, u32 add) {
    for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        const float kept = hash(seed, i) < threshold ? 0.0f : wide(x[i]) * scale;
        y[i] = narrow<T>(add ? wide(y[i]) + kept : kept);
    }
}

template <typename T> static __device__ void uniform(T *y, u32 count, u64 seed, float bound) {
    for (u64 i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
        const float unit = (float)(hash(seed, i) >> 8) * (1.0f / 16777216.0f);
        y[i] = narrow<T>((2.0f * unit - 1.0f) * bound);
    }
}

// A block for each row of the index, which is a row of y (put) or of x.
template <typename T> static __device__ void move_rows(T *y, const T *x, const u32 *index, u32 n, u32 put) {
    const u64 there = index[blockIdx.x], here = blockIdx.x;
    y += (put ? there : here) * n;
    x += (put ? here : there) * n;
    if (packed<T>(x, n) && packed<T>(y, n)) {
        for (u32 i = threadIdx.x; i < n / Pack<T>::N; i += blockDim.x)
            reinterpret_cast<uint4 *>(y)[i] = reinterpret_cast<const uint4 *>(x)[i];
    } else {
        for (u32 i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i];
    }
}

// A block for each row of y [rows, n] and x [rows, 2 n].
template <typename T> static __device__ void swiglu(T *y, const T *x, u32 n) {
    y += (u64)blockIdx.x * n;
    x += (u64)blockIdx.x * 2 * n;
    const bool aligned = packed<T>(x, n) && packed<T>(y, n);
    FOR_PACKS(T, aligned, n) {
        float g[Pack<T>::N], u[Pack<T>::N];
        load(g, x, i, aligned);
        load(u, x + n, i, aligned);
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) g[j] *= sigmoid(g[j]) * u[j];
        store(y, g, i, aligned);
    }
}

template <typename T> static __device__ void swiglu_backward(T *x, const T *dy, u32 n) {
    dy += (u64)blockIdx.x * n;
    x += (u64)blockIdx.x * 2 * n;
    const bool aligned = packed<T>(x, n) && packed<T>(dy, n);
    FOR_PACKS(T, aligned, n) {
        float g[Pack<T>::N], u[Pack<T>::N], d[Pack<T>::N];
        load(g, x, i, aligned);
        load(u, x + n, i, aligned);
        load(d, dy, i, aligned);
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) {
            const float s = sigmoid(g[j]), gate = g[j];
            g[j] = d[j] * u[j] * s * (1.0f + gate * (1.0f - s));
            u[j] = d[j] * gate * s;
        }
        store(x, g, i, aligned);
        store(x + n, u, i, aligned);
    }
}

template <typename T> static __device__ void rms_norm(T *y, const T *x, const T *weight, u32 n, float eps) {
    y += (u64)blockIdx.x * n;
    x += (u64)blockIdx.x * n;
    const bool aligned = packed<T>(x, n) && packed<T>(y, n) && packed<T>(weight, n);
    float squares = 0.0f;
    FOR_PACKS(T, aligned, n) {
        float v[Pack<T>::N] = {};
        load(v, x, i, aligned);
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) squares += v[j] * v[j];
    }
    const float scale = 1.0f / sqrtf(block_sum(squares) / n + eps);
    FOR_PACKS(T, aligned, n) {
        float v[Pack<T>::N], w[Pack<T>::N];
        load(v, x, i, aligned);
        load(w, weight, i, aligned);
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) v[j] *= scale * w[j];
        store(y, v, i, aligned);
    }
}

// Adds the gradient to dx.
template <typename T>
static __device__ void rms_norm_backward(T *dx, const T *x, const T *dy, const T *weight, u32 n, float eps) {
    dx += (u64)blockIdx.x * n;
    x += (u64)blockIdx.x * n;
    dy += (u64)blockIdx.x * n;
    const bool aligned = packed<T>(x, n) && packed<T>(dx, n) && packed<T>(dy, n) && packed<T>(weight, n);
    float squares = 0.0f, products = 0.0f;
    FOR_PACKS(T, aligned, n) {
        float v[Pack<T>::N] = {}, d[Pack<T>::N] = {}, w[Pack<T>::N] = {};
        load(v, x, i, aligned);
        load(d, dy, i, aligned);
        load(w, weight, i, aligned);
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) {
            squares += v[j] * v[j];
            products += v[j] * d[j] * w[j];
        }
    }
    const float scale = 1.0f / sqrtf(block_sum(squares) / n + eps);
    const float along = block_sum(products) / n * scale * scale * scale;
    FOR_PACKS(T, aligned, n) {
        float r[Pack<T>::N], v[Pack<T>::N], d[Pack<T>::N], w[Pack<T>::N];
        load(r, dx, i, aligned);
        load(v, x, i, aligned);
        load(d, dy, i, aligned);
        load(w, weight, i, aligned);
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) r[j] += d[j] * w[j] * scale - v[j] * along;
        store(dx, r, i, aligned);
    }
}

// A block for each token of x [rows, length, heads, 2 half], in place.
template <typename T>
static __device__ void rope(T *x, const u32 *positions, const float *cosines, const float *sines, u32 row_stride,
                            u32 token_stride, u32 head_stride, u32 length, u32 heads, u32 half, u32 inverse,
                            u32 longest) {
    const u32 token = blockIdx.x;
    x += (u64)(token / length) * row_stride + (u64)(token % length) * token_stride;
    // A position beyond the table gives what is not a number, so that the loss shows it.
    const bool known = positions[token] < longest;
    const u64 angles = (u64)positions[token] * half;
    for (u32 i = threadIdx.x; i < heads * half; i += blockDim.x) {
        const u32 pair = i % half;
        T *at = x + (u64)(i / half) * head_stride + pair;
        const float a = wide(at[0]), b = wide(at[half]), c = known ? cosines[angles + pair] : NAN;
        const float sine = known ? sines[angles + pair] : NAN, s = inverse ? -sine : sine;
        at[0] = narrow<T>(a * c - b * s);
        at[half] = narrow<T>(b * c + a * s);
    }
}

// A block for each token: between x [rows, length, heads, dim] and y [rows * kv_heads, length * group, dim].
template <typename X, typename Y, bool TO_Y>
static __device__ void move_heads(X *x, Y *y, u32 row_stride, u32 token_stride, u32 head_stride, u32 length, u32 heads,
                                  u32 kv_heads, u32 dim) {
    const u32 row = blockIdx.x / length, token = blockIdx.x % length, group = heads / kv_heads;
    x += (u64)row * row_stride + (u64)token * token_stride;
    constexpr u32 N = sizeof(X) == sizeof(Y) ? Pack<X>::N : 1;
    const bool aligned = N > 1 && dim % N == 0 && head_stride % N == 0 && token_stride % N == 0 && row_stride % N == 0 &&
                         packed<X>(x, N) && packed<Y>(y, N);
    const u32 step = aligned ? N : 1, per_head = dim / step;
    for (u32 i = threadIdx.x; i < heads * per_head; i += blockDim.x) {
        const u32 head = i / per_head, place = i % per_head * step;
        X *from = x + (u64)head * head_stride + place;
        const u64 batch = (u64)row * kv_heads + head / group;
        Y *to = y + ((batch * length + token) * group + head % group) * dim + place;
        if (aligned) {
            if (TO_Y) *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
            else *reinterpret_cast<uint4 *>(from) = *reinterpret_cast<const uint4 *>(to);
        } else {
            if (TO_Y) *to = narrow<Y>(wide(*from));
            else *from = narrow<X>(wide(*to));
        }
    }
}

// The columns that this warp's row of scores sees, [start, end).
static __device__ __forceinline__ void seen(const u32 *first, u32 row, u32 rows, u32 length, u32 kv_heads, u32 group,
                                            u32 first_query, u32 first_key, u32 &start, u32 &end) {
    const u32 query = first_query + row % rows / group;
    const u32 begin = first[(u64)(row / rows / kv_heads) * length + query];
    start = begin > first_key ? begin - first_key : 0;
    end = query + 1 - first_key;
}

// A warp for each row of scores [batch, rows, keys], in place.
template <typename T>
static __device__ void masked_softmax(u32 all_rows, T *scores, const u32 *first, u32 rows, u32 keys, u32 length,
                                      u32 kv_heads, u32 group, u32 first_query, u32 first_key, float scale) {
    const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= all_rows) return;
    u32 start, end;
    seen(first, row, rows, length, kv_heads, group, first_query, first_key, start, end);
    scores += (u64)row * keys;
    const bool aligned = packed<T>(scores, keys);
    const u32 step = aligned ? Pack<T>::N : 1;
    const float factor = scale * 1.4426950408889634f;
    constexpr u32 HELD = 4;
    if (aligned && keys <= HELD * 32 * Pack<T>::N) {
        // The row fits the registers of the warp: each score is read once, each power computed once.
        float v[HELD][Pack<T>::N], most = -INFINITY, sum = 0.0f;
#pragma unroll
        for (u32 h = 0; h < HELD; ++h) {
            const u32 i = (h * 32 + lane) * Pack<T>::N;
            const bool any = i + Pack<T>::N > start && i < end;
            if (any) load(v[h], scores, i, true);
#pragma unroll
            for (u32 j = 0; j < Pack<T>::N; ++j) {
                if (!any || i + j < start || i + j >= end) v[h][j] = -INFINITY;
                most = fmaxf(most, v[h][j]);
            }
        }
        for (int d = 16; d > 0; d /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
#pragma unroll
        for (u32 h = 0; h < HELD; ++h) {
#pragma unroll
            for (u32 j = 0; j < Pack<T>::N; ++j) sum += v[h][j] = exp2f((v[h][j] - most) * factor);
        }
        const float inverse = 1.0f / warp_sum(sum);
#pragma unroll
        for (u32 h = 0; h < HELD; ++h) {
            const u32 i = (h * 32 + lane) * Pack<T>::N;
            if (i < keys) {
#pragma unroll
                for (u32 j = 0; j < Pack<T>::N; ++j) v[h][j] *= inverse;
                store(scores, v[h], i, true);
            }
        }
        return;
    }
    float largest = -INFINITY, sum = 0.0f;
    for (u32 i = start / step * step + lane * step; i < end; i += 32 * step) {
        float v[Pack<T>::N];
        load(v, scores, i, aligned);
        float most = largest;
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) {
            if (j < step && i + j >= start && i + j < end) most = fmaxf(most, v[j]);
        }
        if (most > largest) {
            sum *= exp2f((largest - most) * factor);
            largest = most;
        }
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) {
            if (j < step && i + j >= start && i + j < end) sum += exp2f((v[j] - largest) * factor);
        }
    }
    float most = largest;
    for (int d = 16; d > 0; d /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
    // A lane that saw nothing adds nothing; a score that is not a number makes the whole row one.
    sum = warp_sum(sum == 0.0f ? 0.0f : sum * exp2f((largest - most) * factor));
    const float inverse = 1.0f / sum;
    for (u32 i = lane * step; i < keys; i += 32 * step) {
        float v[Pack<T>::N];
        if (i + step > start && i < end) {
            load(v, scores, i, aligned);
#pragma unroll
            for (u32 j = 0; j < Pack<T>::N; ++j) {
                const bool inside = i + j >= start && i + j < end;
                v[j] = inside ? exp2f((v[j] - most) * factor) * inverse : 0.0f;
            }
        } else {
#pragma unroll
            for (u32 j = 0; j < Pack<T>::N; ++j) v[j] = 0.0f;
        }
        store(scores, v, i, aligned);
    }
}

template <typename T>
static __device__ void masked_softmax_backward(u32 all_rows, T *grad, const T *p, const u32 *first, u32 rows, u32 keys,
                                               u32 length, u32 kv_heads, u32 group, u32 first_query, u32 first_key,
                                               float scale) {
    const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= all_rows) return;
    u32 start, end;
    seen(first, row, rows, length, kv_heads, group, first_query, first_key, start, end);
    grad += (u64)row * keys;
    p += (u64)row * keys;
    const bool aligned = packed<T>(grad, keys) && packed<T>(p, keys);
    const u32 step = aligned ? Pack<T>::N : 1;
    float sum = 0.0f;
    for (u32 i = start / step * step + lane * step; i < end; i += 32 * step) {
        float g[Pack<T>::N], q[Pack<T>::N];
        load(g, grad, i, aligned);
        load(q, p, i, aligned);
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) {
            // Outside, p is 0, but the gradient may be anything.
            if (j < step && i + j >= start && i + j < end) sum += g[j] * q[j];
        }
    }
    sum = warp_sum(sum);
    for (u32 i = lane * step; i < keys; i += 32 * step) {
        float g[Pack<T>::N], q[Pack<T>::N];
        if (i + step > start && i < end) {
            load(g, grad, i, aligned);
            load(q, p, i, aligned);
#pragma unroll
            for (u32 j = 0; j < Pack<T>::N; ++j) {
                const bool inside = i + j >= start && i + j < end;
                g[j] = inside ? q[j] * (g[j] - sum) * scale : 0.0f;
            }
        } else {
#pragma unroll
            for (u32 j = 0; j < Pack<T>::N; ++j) g[j] = 0.0f;
        }
        store(grad, g, i, aligned);
    }
}

// A block for each row of logits [rows, words]: its loss, and the log of the sum of its powers.
template <typename T>
static __device__ void cross_entropy(float *stats, const T *logits, const u32 *targets, u32 words) {
    logits += (u64)blockIdx.x * words;
    const bool aligned = packed<T>(logits, words);
    const u32 step = aligned ? Pack<T>::N : 1;
    const float factor = 1.4426950408889634f;
    float largest = -INFINITY, sum = 0.0f;
    FOR_PACKS(T, aligned, words) {
        float v[Pack<T>::N];
        load(v, logits, i, aligned);
        float most = largest;
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) {
            if (j < step) most = fmaxf(most, v[j]);
        }
        if (most > largest) {
            sum *= exp2f((largest - most) * factor);
            largest = most;
        }
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j) {
            if (j < step) sum += exp2f((v[j] - largest) * factor);
        }
    }
    __shared__ float maxima[32];
    float most = largest;
    for (int d = 16; d > 0; d /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
    if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = most;
    __syncthreads();
    for (u32 i = 0; i < blockDim.x / 32; ++i) most = fmaxf(most, maxima[i]);
    const float total = block_sum(sum == 0.0f ? 0.0f : sum * exp2f((largest - most) * factor));
    if (threadIdx.x == 0) {
        const float log = most + logf(total);
        // A target outside the words gives what is not a number, so that the loss shows it.
        const u32 target = targets[blockIdx.x];
        stats[2 * blockIdx.x] = target < words ? log - wide(logits[target]) : NAN;
        stats[2 * blockIdx.x + 1] = log;
    }
}

template <typename T>
static __device__ void cross_entropy_backward(T *logits, const float *stats, const u32 *targets, u32 words,
                                              float factor) {
    logits += (u64)blockIdx.x * words;
    const bool aligned = packed<T>(logits, words);
    const float log = stats[2 * blockIdx.x + 1];
    const u32 target = targets[blockIdx.x];
    FOR_PACKS(T, aligned, words) {
        float v[Pack<T>::N];
        load(v, logits, i, aligned);
#pragma unroll
        for (u32 j = 0; j < Pack<T>::N; ++j)
            v[j] = (exp2f((v[j] - log) * 1.4426950408889634f) - (i + j == target ? 1.0f : 0.0f)) * factor;
        store(logits, v, i, aligned);
    }
}

#define KERNEL(name, T, suffix, parameters, arguments)                                                                 \
    extern "C" __global__ void name##_##suffix parameters { name<T> arguments; }
#define BOTH(name, parameters_f32, parameters_bf16, arguments)                                                         \
    KERNEL(name, float, f32, parameters_f32, arguments)                                                                \
    KERNEL(name, bf16, bf16, parameters_bf16, arguments)

BOTH(add_bias, (float *y, const float *b, u32 n), (bf16 *y, const bf16 *b, u32 n), (y, b, n))
BOTH(dropout, (float *y, const float *x, u32 n, u64 s, u32 t, float f, u32 a),
     (bf16 *y, const bf16 *x, u32 n, u64 s, u32 t, float f, u32 a), (y, x, n, s, t, f, a))
BOTH(uniform, (float *y, u32 n, u64 s, float b), (bf16 *y, u32 n, u64 s, float b), (y, n, s, b))
BOTH(move_rows, (float *y, const float *x, const u32 *i, u32 n, u32 p),
     (bf16 *y, const bf16 *x, const u32 *i, u32 n, u32 p), (y, x, i, n, p))
BOTH(swiglu, (float *y, const float *x, u32 n), (bf16 *y, const bf16 *x, u32 n), (y, x, n))
BOTH(swiglu_backward, (float *x, const float *d, u32 n), (bf16 *x, const bf16 *d, u32 n), (x, d, n))
BOTH(rms_norm, (float *y, const float *x, const float *w, u32 n, float e),
     (bf16 *y, const bf16 *x, const bf16 *w, u32 n, float e), (y, x, w, n, e))
BOTH(rms_norm_backward, (float *r, const float *x, const float *d, const float *w, u32 n, float e),
     (bf16 *r, const bf16 *x, const bf16 *d, const bf16 *w, u32 n, float e), (r, x, d, w, n, e))
BOTH(rope,
     (float *x, const u32 *p, const float *c, const float *s, u32 r, u32 t, u32 h, u32 l, u32 n, u32 d, u32 i, u32 m),
     (bf16 *x, const u32 *p, const float *c, const float *s, u32 r, u32 t, u32 h, u32 l, u32 n, u32 d, u32 i, u32 m),
     (x, p, c, s, r, t, h, l, n, d, i, m))
BOTH(masked_softmax,
     (u32 a, float *s, const u32 *f, u32 r, u32 k, u32 l, u32 v, u32 g, u32 q, u32 b, float c),
     (u32 a, bf16 *s, const u32 *f, u32 r, u32 k, u32 l, u32 v, u32 g, u32 q, u32 b, float c),
     (a, s, f, r, k, l, v, g, q, b, c))
BOTH(masked_softmax_backward,
     (u32 a, float *d, const float *p, const u32 *f, u32 r, u32 k, u32 l, u32 v, u32 g, u32 q, u32 b, float c),
     (u32 a, bf16 *d, const bf16 *p, const u32 *f, u32 r, u32 k, u32 l, u32 v, u32 g, u32 q, u32 b, float c),
     (a, d, p, f, r, k, l, v, g, q, b, c))
BOTH(cross_entropy, (float *s, const float *x, const u32 *t, u32 n), (float *s, const bf16 *x, const u32 *t, u32 n),
     (s, x, t, n))
BOTH(cross_entropy_backward, (float *x, const float *s, const u32 *t, u32 n, float f),
     (bf16 *x, const float *s, const u32 *t, u32 n, float f), (x, s, t, n, f))

#define MOVE(name, X, Y, TO_Y, A, B, a, b)                                                                             \
    extern "C" __global__ void name(A *a, B *b, u32 r, u32 t, u32 h, u32 l, u32 n, u32 v, u32 d) {                     \
        move_heads<X, Y, TO_Y>(x, y, r, t, h, l, n, v, d);                                                             \
    }
MOVE(gather_heads_f32, float, float, true, float, float, y, x)
MOVE(gather_heads_bf16, bf16, bf16, true, bf16, bf16, y, x)
MOVE(scatter_heads_f32, float, float, false, float, float, x, y)
MOVE(scatter_heads_bf16, bf16, bf16, false, bf16, bf16, x, y)
MOVE(scatter_heads_narrow_bf16, bf16, float, false, bf16, float, x, y)
