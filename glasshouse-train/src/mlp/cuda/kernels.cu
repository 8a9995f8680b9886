// The parts of an MLP epoch that cuBLAS does not do, over one arena of floats; see plan.rs for what each computes.
// Every sum is taken in a fixed order and by no atomics: the bits depend on nothing but the arguments.

typedef unsigned long long u64;

static constexpr unsigned TILE_COLUMNS = 32;
static constexpr unsigned TILE_ROWS = 8;

// Offset of the state: two doubles, then two floats.
struct State {
    double powers[2];
    float factors[2];
};

extern "C" __global__ void bias_relu(float *arena, u64 z, u64 bias, unsigned columns, unsigned count) {
    const unsigned stride = gridDim.x * blockDim.x;
    const unsigned first = blockIdx.x * blockDim.x + threadIdx.x;
    if (columns % 4 == 0 && bias % 4 == 0) {
        float4 *out = reinterpret_cast<float4 *>(arena + z);
        const float4 *add = reinterpret_cast<const float4 *>(arena + bias);
        for (unsigned i = first; i < count / 4; i += stride) {
            float4 v = out[i];
            const float4 b = add[i % (columns / 4)];
            v.x += b.x;
            v.y += b.y;
            v.z += b.z;
            v.w += b.w;
            // A sum that is not a number stays one, so that the loss shows it.
            v.x = v.x < 0.0f ? 0.0f : v.x;
            v.y = v.y < 0.0f ? 0.0f : v.y;
            v.z = v.z < 0.0f ? 0.0f : v.z;
            v.w = v.w < 0.0f ? 0.0f : v.w;
            out[i] = v;
        }
    } else {
        for (unsigned i = first; i < count; i += stride) {
            const float v = arena[z + i] + arena[bias + i % columns];
            arena[z + i] = v < 0.0f ? 0.0f : v;
        }
    }
}

// Adds each thread's value up over the tile's rows; the sum is in row 0.
static __device__ float column_sum(float value, float (*shared)[TILE_COLUMNS + 1]) {
    shared[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    float sum = 0.0f;
    if (threadIdx.y == 0) {
        for (unsigned row = 0; row < TILE_ROWS; ++row) sum += shared[row][threadIdx.x];
    }
    __syncthreads();
    return sum;
}

// Grid: (tiles across, chunks of rows); block: (TILE_COLUMNS, TILE_ROWS).
extern "C" __global__ void loss(float *arena, u64 output, u64 bias, u64 target, u64 delta, u64 squared, float scale,
                                unsigned rows, unsigned columns, unsigned chunk, u64 sums, u64 sum_stride, u64 state,
                                double beta1, double beta2) {
    __shared__ float shared[TILE_ROWS][TILE_COLUMNS + 1];
    const unsigned column = blockIdx.x * TILE_COLUMNS + threadIdx.x;
    const unsigned end = min(rows, (blockIdx.y + 1) * chunk);
    float delta_sum = 0.0f, squared_sum = 0.0f;
    if (column < columns) {
        // Regions of one arena never overlap; said, so that loads need not wait for stores.
        const float *__restrict__ outputs = arena + output, *__restrict__ targets = arena + target;
        float *__restrict__ deltas = arena + delta;
        const float add = arena[bias + column];
#pragma unroll 4
        for (unsigned row = blockIdx.y * chunk + threadIdx.y; row < end; row += TILE_ROWS) {
            const u64 at = static_cast<u64>(row) * columns + column;
            const float error = outputs[at] + add - targets[at];
            const float d = error * scale;
            deltas[at] = d;
            delta_sum += d;
            squared_sum += error * error;
        }
    }
    delta_sum = column_sum(delta_sum, shared);
    squared_sum = column_sum(squared_sum, shared);
    if (threadIdx.y == 0) {
        if (column < columns) arena[sums + blockIdx.y * sum_stride + column] = delta_sum;
        shared[0][threadIdx.x] = squared_sum;
    }
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        float sum = 0.0f;
        for (unsigned i = 0; i < TILE_COLUMNS; ++i) sum += shared[0][i];
        arena[squared + blockIdx.y * gridDim.x + blockIdx.x] = sum;
        if (blockIdx.x == 0 && blockIdx.y == 0) {
            State *s = reinterpret_cast<State *>(arena + state);
            s->powers[0] *= beta1;
            s->powers[1] *= beta2;
            s->factors[0] = static_cast<float>(1.0 / (1.0 - s->powers[0]));
            s->factors[1] = static_cast<float>(1.0 / (1.0 - s->powers[1]));
        }
    }
}

// Grid and block as for `loss`.
extern "C" __global__ void mask(float *arena, u64 delta, u64 activation, unsigned rows, unsigned columns,
                                unsigned chunk, u64 sums, u64 sum_stride) {
    __shared__ float shared[TILE_ROWS][TILE_COLUMNS + 1];
    const unsigned column = blockIdx.x * TILE_COLUMNS + threadIdx.x;
    const unsigned end = min(rows, (blockIdx.y + 1) * chunk);
    float sum = 0.0f;
    if (column < columns) {
        const float *__restrict__ activations = arena + activation;
        float *__restrict__ deltas = arena + delta;
#pragma unroll 4
        for (unsigned row = blockIdx.y * chunk + threadIdx.y; row < end; row += TILE_ROWS) {
            const u64 at = static_cast<u64>(row) * columns + column;
            const float d = activations[at] > 0.0f ? deltas[at] : 0.0f;
            deltas[at] = d;
            sum += d;
        }
    }
    sum = column_sum(sum, shared);
    if (threadIdx.y == 0 && column < columns) arena[sums + blockIdx.y * sum_stride + column] = sum;
}

// The gradient of parameter i: its parts, added up in order.
static __device__ float gradient(const float *arena, unsigned i, unsigned weights, unsigned splits, u64 gradients,
                                 u64 gradient_stride, unsigned chunks, u64 sums, u64 sum_stride) {
    const bool is_weight = i < weights;
    const float *part = arena + (is_weight ? gradients + i : sums + (i - weights));
    const u64 stride = is_weight ? gradient_stride : sum_stride;
    const unsigned parts = is_weight ? splits : chunks;
    float sum = part[0];
#pragma unroll 4
    for (unsigned p = 1; p < parts; ++p) sum += part[p * stride];
    return sum;
}

extern "C" __global__ void update_sgd(float *arena, u64 params, unsigned weights, unsigned splits, u64 gradients,
                                      u64 gradient_stride, unsigned biases, unsigned chunks, u64 sums, u64 sum_stride,
                                      float lr) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= weights + biases) return;
    const float g = gradient(arena, i, weights, splits, gradients, gradient_stride, chunks, sums, sum_stride);
    arena[params + i] -= lr * g;
}

extern "C" __global__ void update_adamw(float *arena, u64 params, unsigned weights, unsigned splits, u64 gradients,
                                        u64 gradient_stride, unsigned biases, unsigned chunks, u64 sums,
                                        u64 sum_stride, u64 first, u64 second, u64 state, float beta1,
                                        float one_minus_beta1, float beta2, float one_minus_beta2, float keep,
                                        float lr, float eps) {
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= weights + biases) return;
    const float g = gradient(arena, i, weights, splits, gradients, gradient_stride, chunks, sums, sum_stride);
    const State *s = reinterpret_cast<const State *>(arena + state);
    const float m = arena[first + i] * beta1 + g * one_minus_beta1;
    const float v = arena[second + i] * beta2 + g * g * one_minus_beta2;
    arena[first + i] = m;
    arena[second + i] = v;
    arena[params + i] = arena[params + i] * keep - lr * ((m * s->factors[0]) / (sqrtf(v * s->factors[1]) + eps));
}
