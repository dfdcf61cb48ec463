// What launches and barriers cost on this GPU: one JSON object a line, as soon as it is measured.
//
//     nvcc -std=c++17 -O2 -gencode=arch=compute_90,code=sm_90 gpu_costs.cu -o gpu_costs && ./gpu_costs
//
// `samples` are seconds for one of what the line is about (a node, a barrier, a graph). For sm_90 and newer.

#include <chrono>
#include <cooperative_groups.h>
#include <cstdio>
#include <cstdlib>
#include <cuda_runtime.h>
#include <functional>
#include <string>
#include <vector>

namespace groups = cooperative_groups;

#define CHECK(call)                                                                                    \
    do {                                                                                               \
        cudaError_t status = (call);                                                                   \
        if (status != cudaSuccess) {                                                                   \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(status)); \
            std::exit(1);                                                                              \
        }                                                                                              \
    } while (false)

// --- kernels ------------------------------------------------------------------------------------------------------

__global__ void nothing() {}

// The next kernel may begin when all blocks of this one have said so; it waits for this one's end and memory.
__global__ void nothing_programmatic() {
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

__global__ void grid_barriers(int count) {
    groups::grid_group grid = groups::this_grid();
    for (int i = 0; i < count; ++i) grid.sync();
}

// A barrier of our own: a counter that every block adds one to. All blocks must be resident.
__global__ void counter_barriers(int count, unsigned* arrived) {
    for (int i = 1; i <= count; ++i) {
        __syncthreads();
        if (threadIdx.x == 0) {
            unsigned wanted = i * gridDim.x, seen;
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(arrived) : "memory");
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrived) : "memory");
            } while (seen < wanted);
        }
        __syncthreads();
    }
}

__global__ void cluster_barriers(int count) {
    groups::cluster_group cluster = groups::this_cluster();
    for (int i = 0; i < count; ++i) cluster.sync();
}

__global__ void block_barriers(int count) {
    for (int i = 0; i < count; ++i) __syncthreads();
}

// --- measuring ----------------------------------------------------------------------------------------------------

cudaStream_t stream;
const int REPEATS = 20;

void print(const std::string& name, const std::string& facts, const std::vector<double>& samples) {
    std::printf("{\"name\": \"%s\"%s, \"samples\": [", name.c_str(), facts.c_str());
    for (size_t i = 0; i < samples.size(); ++i) std::printf("%s%.9g", i ? ", " : "", samples[i]);
    std::printf("]}\n");
    std::fflush(stdout);
}

std::string fact(const char* name, long value) { return std::string(", \"") + name + "\": " + std::to_string(value); }

// Seconds of work(), over `parts`, for each of REPEATS calls after a few others.
std::vector<double> measure(const std::function<void()>& work, double parts) {
    cudaEvent_t begin, end;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    std::vector<double> samples;
    for (int i = -5; i < REPEATS; ++i) {
        CHECK(cudaEventRecord(begin, stream));
        work();
        CHECK(cudaGetLastError());
        CHECK(cudaEventRecord(end, stream));
        CHECK(cudaEventSynchronize(end));
        float milliseconds = 0;
        CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
        if (i >= 0) samples.push_back(milliseconds / 1e3 / parts);
    }
    CHECK(cudaEventDestroy(begin));
    CHECK(cudaEventDestroy(end));
    return samples;
}

cudaLaunchConfig_t config(int blocks, int threads, cudaLaunchAttribute* attribute, size_t shared = 0) {
    cudaLaunchConfig_t found = {};
    found.gridDim = dim3(blocks);
    found.blockDim = dim3(threads);
    found.dynamicSmemBytes = shared;
    found.stream = stream;
    found.attrs = attribute;
    found.numAttrs = attribute ? 1 : 0;
    return found;
}

void launch_empty(int blocks, int threads, bool programmatic) {
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t how = config(blocks, threads, programmatic ? &attribute : nullptr);
    CHECK(cudaLaunchKernelEx(&how, programmatic ? nothing_programmatic : nothing));
}

cudaGraphExec_t graph_of(int nodes, int blocks, int threads, bool programmatic) {
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    for (int i = 0; i < nodes; ++i) launch_empty(blocks, threads, programmatic);
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    CHECK(cudaGraphDestroy(graph));
    CHECK(cudaGraphUpload(ready, stream));
    return ready;
}

void empty_nodes(int nodes, int blocks, int threads, bool programmatic) {
    cudaGraphExec_t graph = graph_of(nodes, blocks, threads, programmatic);
    auto samples = measure([&] { CHECK(cudaGraphLaunch(graph, stream)); }, nodes);
    std::string facts = fact("nodes", nodes) + fact("blocks", blocks) + fact("threads", threads);
    print(programmatic ? "empty graph node, programmatic launch" : "empty graph node", facts, samples);
    CHECK(cudaGraphExecDestroy(graph));
}

// A step of 8 launches: what it costs to launch its graph again and again.
void graph_launches(int nodes) {
    const int launches = 64;
    cudaGraphExec_t graph = graph_of(nodes, 132, 128, false);
    auto work = [&] {
        for (int i = 0; i < launches; ++i) CHECK(cudaGraphLaunch(graph, stream));
    };
    print("graph launched again and again", fact("nodes", nodes), measure(work, launches));
    CHECK(cudaGraphExecDestroy(graph));
}

void stream_launches() {
    const int launches = 256;
    auto work = [&] {
        for (int i = 0; i < launches; ++i) launch_empty(132, 128, false);
    };
    print("launch on a stream, without a graph", fact("blocks", 132) + fact("threads", 128), measure(work, launches));
}

void barriers_of_a_grid(int blocks, int threads) {
    int count = 200;
    std::string facts = fact("blocks", blocks) + fact("threads", threads);
    void* arguments[] = {&count};
    auto cooperative = [&] {
        CHECK(cudaLaunchCooperativeKernel((void*)grid_barriers, dim3(blocks), dim3(threads), arguments, 0, stream));
    };
    print("grid barrier, cooperative groups", facts, measure(cooperative, count));
    unsigned* arrived;
    CHECK(cudaMalloc(&arrived, sizeof *arrived));
    void* ours[] = {&count, &arrived};
    auto counter = [&] {
        CHECK(cudaMemsetAsync(arrived, 0, sizeof *arrived, stream));
        CHECK(cudaLaunchCooperativeKernel((void*)counter_barriers, dim3(blocks), dim3(threads), ours, 0, stream));
    };
    print("grid barrier, a counter", facts, measure(counter, count));
    CHECK(cudaFree(arrived));
}

cudaLaunchAttribute cluster_of(int size) {
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = size;
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    return attribute;
}

// How many clusters can be resident at once: what a persistent kernel of clusters can count on. -1: refused.
int resident(int size, int threads, int shared) {
    CHECK(cudaFuncSetAttribute(cluster_barriers, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
    CHECK(cudaFuncSetAttribute(cluster_barriers, cudaFuncAttributeNonPortableClusterSizeAllowed, size > 8));
    cudaLaunchAttribute attribute = cluster_of(size);
    cudaLaunchConfig_t how = config(size, threads, &attribute, shared);
    int clusters = 0;
    if (cudaOccupancyMaxActiveClusters(&clusters, cluster_barriers, &how) == cudaSuccess) return clusters;
    (void)cudaGetLastError();
    return -1;
}

void resident_clusters(int size, int threads, int shared) {
    std::string facts = fact("size", size) + fact("threads", threads) + fact("shared", shared);
    print("resident clusters", facts + fact("clusters", resident(size, threads, shared)), {});
}

void barriers_of_a_cluster(int size, int clusters, int threads) {
    const int count = 1000;
    if (resident(size, threads, 0) < clusters) return;
    cudaLaunchAttribute attribute = cluster_of(size);
    cudaLaunchConfig_t how = config(size * clusters, threads, &attribute);
    auto samples = measure([&] { CHECK(cudaLaunchKernelEx(&how, cluster_barriers, count)); }, count);
    print("cluster barrier", fact("size", size) + fact("clusters", clusters) + fact("threads", threads), samples);
}

void copy() {
    const size_t size = size_t(1) << 30;
    void *from, *to;
    CHECK(cudaMalloc(&from, size));
    CHECK(cudaMalloc(&to, size));
    CHECK(cudaMemsetAsync(from, 0x5A, size, stream));
    auto work = [&] { CHECK(cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, stream)); };
    print("byte of a copy, read and written", fact("bytes", size), measure(work, 2.0 * size));
    CHECK(cudaFree(from));
    CHECK(cudaFree(to));
}

int main() {
    CHECK(cudaSetDevice(0));
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    int processors = 0;
    CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
    // An idle GPU is slow until its clock has gone up.
    auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    while (std::chrono::steady_clock::now() < end) {
        block_barriers<<<processors, 256, 0, stream>>>(20000);
        CHECK(cudaStreamSynchronize(stream));
    }
    for (bool programmatic : {false, true}) {
        empty_nodes(256, processors, 128, programmatic);
        empty_nodes(256, 1, 32, programmatic);
        empty_nodes(8, processors, 128, programmatic);
        empty_nodes(256, 4 * processors, 128, programmatic);
    }
    for (int size : {8, 16})
        for (int threads : {128, 256})
            for (int shared : {0, 64 * 1024, 128 * 1024, 200 * 1024}) resident_clusters(size, threads, shared);
    barriers_of_a_grid(processors, 128);
    barriers_of_a_grid(processors, 256);
    for (int size : {2, 4, 8, 16}) {
        barriers_of_a_cluster(size, 1, 256);
        barriers_of_a_cluster(size, 4, 256);
    }
    for (int nodes : {1, 8, 64}) graph_launches(nodes);
    stream_launches();
    copy();
    return 0;
}
