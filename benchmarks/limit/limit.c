/* The least time a step can take: all its weights read once and multiplied, and nothing else.

   limit SECONDS [KIND,I,H,L ...]   KIND is the number of gates (4 lstm, 3 gru)

   For each shape one line: name, bytes, ns of the product, ns of only reading the same bytes. The product is a
   vectorised matrix-vector product over the same number of weight bytes, in the order they are stored: rows of
   8 vectors, 8 sums in registers. First come two lines on the machine: the rate of
   multiply-adds without memory ("fma", MAC a ns), and the vector's width ("width", bytes).

   Portable: GCC's and Clang's vector extensions, no intrinsics; the compiler's -march=native (or -mcpu=native) decides.
   The buffer is aligned to 2 MB and, on Linux, asked for as a huge page, so that the TLB plays no part. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define ROW (8 * LANES)
#define ROUNDS 15

typedef float vec __attribute__((vector_size(4 * LANES)));

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline vec at(const float *p) { return *(const vec *)p; }

/* n times the product of rows x ROW weights with x. */
static __attribute__((noinline)) void product(const float *weights, const float *x, float *y, long rows, long n)
{
    for (long i = 0; i < n; i++) {
        const float *w = weights;
        vec a = {0}, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
        for (long r = 0; r < rows; r++, w += ROW) {
            float u = x[r & 255];
            a += u * at(w), b += u * at(w + LANES), c += u * at(w + 2 * LANES), d += u * at(w + 3 * LANES);
            e += u * at(w + 4 * LANES), f += u * at(w + 5 * LANES);
            g += u * at(w + 6 * LANES), h += u * at(w + 7 * LANES);
        }
        *(vec *)y = (a + e) + (b + f) + (c + g) + (d + h);
        __asm__ volatile("" : : "r"(y) : "memory");
    }
}

/* n times the same bytes, only read: one exclusive or per vector. */
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
static __attribute__((noinline)) void reading(const float *weights, float *y, long rows, long n)
{
    for (long i = 0; i < n; i++) {
        const ivec *v = (const ivec *)weights;
        ivec a = {0}, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
        for (long r = 0; r < rows; r++, v += 8)
            a ^= v[0], b ^= v[1], c ^= v[2], d ^= v[3], e ^= v[4], f ^= v[5], g ^= v[6], h ^= v[7];
        *(ivec *)y = (a ^ b) ^ (c ^ d) ^ (e ^ f) ^ (g ^ h);
        __asm__ volatile("" : : "r"(y) : "memory");
    }
}

/* Multiply-adds of registers, MAC a ns: 10 independent sums. */
static __attribute__((noinline)) double fma_rate(long n, float *y)
{
    const vec zero = {0}, m = zero + y[0] + 0.999f, p = zero + y[1] + 1e-3f;
    vec a = zero, b = p, c = m, d = a + c, e = d + p, f = e + p, g = f + p, h = g + p, i = h + p, j = i + p;
    double start = now();
    for (long k = 0; k < n; k++) {
        a = a * m + p, b = b * m + p, c = c * m + p, d = d * m + p, e = e * m + p;
        f = f * m + p, g = g * m + p, h = h * m + p, i = i * m + p, j = j * m + p;
    }
    double time = now() - start;
    *(vec *)y = (a + b) + (c + d) + (e + f) + (g + h) + (i + j);
    return 10.0 * LANES * (double)n / time;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 0;
    if (!(seconds > 0)) {
        fprintf(stderr, "usage: limit SECONDS GATES,I,H,L ...\n");
        return 2;
    }
    static float y[ROW] __attribute__((aligned(64)));
    static float x[256];
    for (int i = 0; i < 256; i++) x[i] = 0.01f * (float)i;
    double rates[ROUNDS];
    for (int k = 0; k < ROUNDS; k++) {
        y[0] = y[1] = 0;
        rates[k] = fma_rate((long)(seconds * 1e9 / ROUNDS / 8) + 1, y);
    }
    qsort(rates, ROUNDS, sizeof *rates, rising);
    printf("fma %.2f\nwidth %d\n", rates[ROUNDS / 2], 4 * LANES);
    for (int a = 2; a < argc; a++) {
        long gates, inputs, hidden, layers;
        if (sscanf(argv[a], "%ld,%ld,%ld,%ld", &gates, &inputs, &hidden, &layers) != 4 || gates < 1 || inputs < 1
            || hidden < 1 || layers < 1) {
            fprintf(stderr, "limit: expected GATES,I,H,L, got %s\n", argv[a]);
            return 2;
        }
        long numbers = gates * hidden * (inputs + hidden + (layers - 1) * 2 * hidden) + inputs * hidden;
        long rows = (numbers + ROW / 2) / ROW;
        size_t bytes = ((size_t)rows * ROW * sizeof(float) + (1 << 21) - 1) & ~(size_t)((1 << 21) - 1);
        float *w = aligned_alloc(1 << 21, bytes);
        if (!w) {
            fprintf(stderr, "limit: no memory for %zu bytes\n", bytes);
            return 1;
        }
#ifdef MADV_HUGEPAGE
        madvise(w, bytes, MADV_HUGEPAGE);
#endif
        for (size_t i = 0; i < bytes / sizeof(float); i++) w[i] = 1e-3f * (float)(i % 7);
        double products[ROUNDS], readings[ROUNDS];
        double start;
        product(w, x, y, rows, 1);
        reading(w, y, rows, 1);
        start = now();
        product(w, x, y, rows, 16);
        long n = (long)(seconds * 1e9 / ROUNDS / 2 / ((now() - start) / 16)) + 1;
        for (int k = 0; k < ROUNDS; k++) {
            start = now();
            product(w, x, y, rows, n);
            products[k] = (now() - start) / (double)n;
            start = now();
            reading(w, y, rows, n);
            readings[k] = (now() - start) / (double)n;
        }
        qsort(products, ROUNDS, sizeof *products, rising);
        qsort(readings, ROUNDS, sizeof *readings, rising);
        printf("%s %ld %.2f %.2f\n", argv[a], rows * ROW * 4, products[ROUNDS / 2], readings[ROUNDS / 2]);
        fflush(stdout);
        free(w);
    }
    return 0;
}
