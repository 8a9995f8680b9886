// Reading device memory back after it was overwritten, and looking for bytes in it.

// Counts 4-byte words that are not zero. `block` is 16-byte aligned and `vectors` 16-byte vectors long; the grid covers it
// in strides of eight loads in flight per thread.
extern "C" __global__ void words_not_zero(const uint4 *block, unsigned long long vectors, unsigned long long *sum) {
    const unsigned long long threads = (unsigned long long)gridDim.x * blockDim.x;
    const unsigned long long first = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
    unsigned long long found = 0;
    for (unsigned long long at = first; at < vectors; at += 8 * threads) {
        uint4 seen[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const unsigned long long here = at + i * threads;
            seen[i] = here < vectors ? __ldcs(block + here) : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            found += (seen[i].x != 0) + (seen[i].y != 0) + (seen[i].z != 0) + (seen[i].w != 0);
        }
    }
    if (found != 0) atomicAdd(sum, found);
}

// Counts places, aligned to 4 bytes, where the four words of a pattern stand.
extern "C" __global__ void find_pattern(const unsigned *block, unsigned long long words, unsigned a, unsigned b,
                                        unsigned c, unsigned d, unsigned long long *sum) {
    const unsigned long long threads = (unsigned long long)gridDim.x * blockDim.x;
    unsigned long long found = 0;
    for (unsigned long long at = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x; at + 3 < words; at += threads) {
        if (block[at] == a && block[at + 1] == b && block[at + 2] == c && block[at + 3] == d) ++found;
    }
    if (found != 0) atomicAdd(sum, found);
}
