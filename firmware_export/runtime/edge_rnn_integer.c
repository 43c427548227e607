/* ---- arithmetic of the network: int8 weights, int16 activations, int32 cells ------------------------
 *
 * Q15: 32768 stands for 1. Every sum is exact, and no width can overflow: that was checked with these very
 * weights when this file was made. No 64-bit arithmetic is needed but for a projection. */

#if defined(__GNUC__)
#define ERN_INLINE static inline __attribute__((always_inline))
#else
#define ERN_INLINE static inline
#endif

typedef char ern_shift_rounds_down[((-1 >> 1) == -1) ? 1 : -1];

/* What a row's sums are worth, and its bias. */
typedef struct {
    int16_t m_x;
    int16_t m_h;
    int32_t bias;
} ern_row;

/* One layer. Weights of a unit: the inputs in groups of ERN_GROUP, for each group its weights of every gate; then
 * the same for h. Sizes are those of the weights, filled up with zeros to whole groups. */
typedef struct {
    const int8_t *w;
    const ern_row *rows; /* a unit's gates one after the other */
    int32_t n_x;
    int32_t n_h;
    int32_t units;
    int32_t bits;        /* a row's value is in Q`bits` */
} ern_layer;

/* The nearest integer (a tie to even) in -32767..32767; what is no number gives the lowest. */
static int16_t ern_input(float x, float scale)
{
    float t = x * scale;

    if (!(t > -32767.0f)) {
        t = -32767.0f;
    }
    if (t > 32767.0f) {
        t = 32767.0f;
    }
    return (int16_t)((t + 12582912.0f) - 12582912.0f);
}

#if ERN_HAS_LIMITED
ERN_INLINE int32_t ern_limited(int32_t value, int32_t limit)
{
    if (value > limit) {
        return limit;
    }
    return (value < -limit) ? -limit : value;
}
#endif

/* ---- sums of products: s[gate] += row of the gate times x[n], n a multiple of ERN_GROUP ----------- */

#if ERN_HAS_MVE
#if defined(__ARM_FEATURE_MVE)
#define ERN_VECTORS 1
#include <arm_mve.h>
#endif
#endif
#if ERN_HAS_DSP
#if defined(__GNUC__)
#define ERN_ALIGNED __attribute__((aligned(4)))
#else
#define ERN_ALIGNED
#endif
#if defined(__GNUC__) && defined(__ARM_FEATURE_SIMD32) && !defined(__ARM_BIG_ENDIAN)
#define ERN_PAIRS 1
#include <arm_acle.h>

/* Two numbers of 16 bits, or four of 8, as one word. */
ERN_INLINE int32_t ern_word(const void *from)
{
    int32_t word;

    __builtin_memcpy(&word, from, sizeof(word));
    return word;
}

/* Four weights, stored in the order 0, 2, 1, 3, times two pairs of activations. */
ERN_INLINE int32_t ern_four(int32_t sum, int32_t weights, int32_t x01, int32_t x23)
{
    int32_t w23;

    __asm__("sxtb16 %0, %1, ror #8" : "=r"(w23) : "r"(weights));
    return __smlad(w23, x23, __smlad(__sxtb16(weights), x01, sum));
}

/* The same for two gates. Both words are wanted at once, so that one instruction loads them. */
ERN_INLINE void ern_two(const int8_t *w, int32_t x01, int32_t x23, int32_t *first, int32_t *second)
{
    int32_t a = ern_word(&w[0]);
    int32_t b = ern_word(&w[4]);

    __asm__("" : "+r"(a), "+r"(b));
    *first = ern_four(*first, a, x01, x23);
    *second = ern_four(*second, b, x01, x23);
}
#endif
#endif

#if ERN_HAS_DOT1
ERN_INLINE void ern_dot1(const int8_t *w, const int16_t *x, int32_t n, int32_t s[1])
{
    int32_t k;

#if ERN_HAS_MVE
#if defined(ERN_VECTORS)
    for (k = 0; k < n; k += ERN_GROUP) {
        const int16x8_t v = vldrhq_s16(&x[k]);

        s[0] = vmladavaq_s16(s[0], v, vldrbq_s16(&w[0]));
        w += ERN_GROUP;
    }
#else
    int32_t j;

    for (k = 0; k < n; k += ERN_GROUP) {
        for (j = 0; j < ERN_GROUP; j++) {
            s[0] += (int32_t)w[j] * x[k + j];
        }
        w += ERN_GROUP;
    }
#endif
#elif ERN_HAS_DSP
#if defined(ERN_PAIRS)
    w = __builtin_assume_aligned(w, 4);
#pragma GCC unroll 2
    for (k = 0; k < n; k += ERN_GROUP) {
        const int32_t x01 = ern_word(&x[k]);
        const int32_t x23 = ern_word(&x[k + 2]);

        s[0] = ern_four(s[0], ern_word(&w[0]), x01, x23);
        w += ERN_GROUP;
    }
#else
    int32_t g;

    for (k = 0; k < n; k += ERN_GROUP) {
        for (g = 0; g < 1; g++) {
            s[g] += ((int32_t)w[0] * x[k]) + ((int32_t)w[2] * x[k + 1]);
            s[g] += ((int32_t)w[1] * x[k + 2]) + ((int32_t)w[3] * x[k + 3]);
            w += ERN_GROUP;
        }
    }
#endif
#else
    for (k = 0; k < n; k += ERN_GROUP) {
        const int32_t x0 = x[k];
        const int32_t x1 = x[k + 1];
        const int32_t x2 = x[k + 2];
        const int32_t x3 = x[k + 3];

        s[0] += w[0] * x0;
        s[0] += w[1] * x1;
        s[0] += w[2] * x2;
        s[0] += w[3] * x3;
        w += ERN_GROUP;
    }
#endif
}
#endif

#if ERN_HAS_DOT3
ERN_INLINE void ern_dot3(const int8_t *w, const int16_t *x, int32_t n, int32_t s[3])
{
    int32_t k;

#if ERN_HAS_MVE
#if defined(ERN_VECTORS)
    for (k = 0; k < n; k += ERN_GROUP) {
        const int16x8_t v = vldrhq_s16(&x[k]);

        s[0] = vmladavaq_s16(s[0], v, vldrbq_s16(&w[0]));
        s[1] = vmladavaq_s16(s[1], v, vldrbq_s16(&w[8]));
        s[2] = vmladavaq_s16(s[2], v, vldrbq_s16(&w[16]));
        w += 3 * ERN_GROUP;
    }
#else
    int32_t j;

    for (k = 0; k < n; k += ERN_GROUP) {
        for (j = 0; j < (3 * ERN_GROUP); j++) {
            s[j / ERN_GROUP] += (int32_t)w[j] * x[k + (j % ERN_GROUP)];
        }
        w += 3 * ERN_GROUP;
    }
#endif
#elif ERN_HAS_DSP
#if defined(ERN_PAIRS)
    w = __builtin_assume_aligned(w, 4);
#pragma GCC unroll 4
    for (k = 0; k < n; k += ERN_GROUP) {
        const int32_t x01 = ern_word(&x[k]);
        const int32_t x23 = ern_word(&x[k + 2]);

        ern_two(&w[0], x01, x23, &s[0], &s[1]);
        s[2] = ern_four(s[2], ern_word(&w[8]), x01, x23);
        w += 3 * ERN_GROUP;
    }
#else
    int32_t g;

    for (k = 0; k < n; k += ERN_GROUP) {
        for (g = 0; g < 3; g++) {
            s[g] += ((int32_t)w[0] * x[k]) + ((int32_t)w[2] * x[k + 1]);
            s[g] += ((int32_t)w[1] * x[k + 2]) + ((int32_t)w[3] * x[k + 3]);
            w += ERN_GROUP;
        }
    }
#endif
#else
    for (k = 0; k < n; k += ERN_GROUP) {
        const int32_t x0 = x[k];
        const int32_t x1 = x[k + 1];
        const int32_t x2 = x[k + 2];
        const int32_t x3 = x[k + 3];

        s[0] += w[0] * x0;
        s[0] += w[1] * x1;
        s[0] += w[2] * x2;
        s[0] += w[3] * x3;
        s[1] += w[4] * x0;
        s[1] += w[5] * x1;
        s[1] += w[6] * x2;
        s[1] += w[7] * x3;
        s[2] += w[8] * x0;
        s[2] += w[9] * x1;
        s[2] += w[10] * x2;
        s[2] += w[11] * x3;
        w += 3 * ERN_GROUP;
    }
#endif
}
#endif

#if ERN_HAS_DOT4
ERN_INLINE void ern_dot4(const int8_t *w, const int16_t *x, int32_t n, int32_t s[4])
{
    int32_t k;

#if ERN_HAS_MVE
#if defined(ERN_VECTORS)
    for (k = 0; k < n; k += ERN_GROUP) {
        const int16x8_t v = vldrhq_s16(&x[k]);

        s[0] = vmladavaq_s16(s[0], v, vldrbq_s16(&w[0]));
        s[1] = vmladavaq_s16(s[1], v, vldrbq_s16(&w[8]));
        s[2] = vmladavaq_s16(s[2], v, vldrbq_s16(&w[16]));
        s[3] = vmladavaq_s16(s[3], v, vldrbq_s16(&w[24]));
        w += 4 * ERN_GROUP;
    }
#else
    int32_t j;

    for (k = 0; k < n; k += ERN_GROUP) {
        for (j = 0; j < (4 * ERN_GROUP); j++) {
            s[j / ERN_GROUP] += (int32_t)w[j] * x[k + (j % ERN_GROUP)];
        }
        w += 4 * ERN_GROUP;
    }
#endif
#elif ERN_HAS_DSP
#if defined(ERN_PAIRS)
    w = __builtin_assume_aligned(w, 4);
#pragma GCC unroll 2
    for (k = 0; k < n; k += ERN_GROUP) {
        const int32_t x01 = ern_word(&x[k]);
        const int32_t x23 = ern_word(&x[k + 2]);

        ern_two(&w[0], x01, x23, &s[0], &s[1]);
        ern_two(&w[8], x01, x23, &s[2], &s[3]);
        w += 4 * ERN_GROUP;
    }
#else
    int32_t g;

    for (k = 0; k < n; k += ERN_GROUP) {
        for (g = 0; g < 4; g++) {
            s[g] += ((int32_t)w[0] * x[k]) + ((int32_t)w[2] * x[k + 1]);
            s[g] += ((int32_t)w[1] * x[k + 2]) + ((int32_t)w[3] * x[k + 3]);
            w += ERN_GROUP;
        }
    }
#endif
#else
    for (k = 0; k < n; k += ERN_GROUP) {
        const int32_t x0 = x[k];
        const int32_t x1 = x[k + 1];
        const int32_t x2 = x[k + 2];
        const int32_t x3 = x[k + 3];

        s[0] += w[0] * x0;
        s[0] += w[1] * x1;
        s[0] += w[2] * x2;
        s[0] += w[3] * x3;
        s[1] += w[4] * x0;
        s[1] += w[5] * x1;
        s[1] += w[6] * x2;
        s[1] += w[7] * x3;
        s[2] += w[8] * x0;
        s[2] += w[9] * x1;
        s[2] += w[10] * x2;
        s[2] += w[11] * x3;
        s[3] += w[12] * x0;
        s[3] += w[13] * x1;
        s[3] += w[14] * x2;
        s[3] += w[15] * x3;
        w += 4 * ERN_GROUP;
    }
#endif
}
#endif

/* ---- from sums to numbers --------------------------------------------------------------------------- */

#if ERN_HAS_INTEGER_ROWS
/* value + ((sum * m) >> 16), m in 0..32767; as an upper word, so that one instruction shifts. */
ERN_INLINE int32_t ern_plus(int32_t value, int32_t sum, int32_t m)
{
#if ERN_HAS_DSP
#if defined(ERN_PAIRS)
    return __smlawb(sum, m, value);
#else
    return value + (int32_t)(((int64_t)sum * (m * 65536)) >> 32);
#endif
#elif ERN_HAS_NARROW
    return value + ((sum >> 16) * m) + (((sum & 65535) * m) >> 16);
#else
    return value + (int32_t)(((int64_t)sum * (m * 65536)) >> 32);
#endif
}
#endif

#if ERN_HAS_GATES
/* (factor * value + 2^14) >> 15, factor in 0..32768, |value| <= 2^30. */
ERN_INLINE int32_t ern_times(int32_t factor, int32_t value)
{
#if ERN_HAS_DSP || ERN_HAS_MVE
    return (int32_t)((((int64_t)factor * value) + 16384) >> 15);
#else
    return (factor * (value >> 15)) + (((factor * (value & 32767)) + 16384) >> 15);
#endif
}
#endif

#if ERN_HAS_INTEGER_LSTM || ERN_HAS_INTEGER_GRU || ERN_HAS_TABLE && ERN_HAS_DSP || ERN_HAS_TABLE && ERN_HAS_MVE
/* v limited to the numbers of `bits` bits. */
ERN_INLINE int32_t ern_saturated(int32_t v, int32_t bits)
{
    const int32_t most = (int32_t)(((uint32_t)1 << (bits - 1)) - 1u);

#if ERN_HAS_DSP || ERN_HAS_MVE
#if defined(__GNUC__) && defined(__ARM_FEATURE_SAT)
    if (__builtin_constant_p(bits)) {
        int32_t limited;

        __asm__("ssat %0, %1, %2" : "=r"(limited) : "i"(bits), "r"(v));
        return limited;
    }
#endif
#endif
    return (v > most) ? most : ((v < (-most - 1)) ? (-most - 1) : v);
}
#endif

#if ERN_HAS_TABLE
/* v in steps of 2^-bits of the table's, a line drawn between two entries; for v < 0 all bits are inverted, on
 * the way in and out. */
#if ERN_HAS_DOT4 && !ERN_HAS_DSP && !ERN_HAS_MVE
/* Five times in an lstm: here calls cost less time than copies cost flash. */
#if defined(__GNUC__)
__attribute__((noinline))
#endif
static int32_t ern_lookup(int32_t v, int32_t bits)
#else
ERN_INLINE int32_t ern_lookup(int32_t v, int32_t bits)
#endif
{
    const int32_t sign = v >> 31;
    const int16_t *entry;
    int32_t a;

#if ERN_HAS_DSP || ERN_HAS_MVE
    a = ern_saturated(v, bits + 9) ^ sign;
#else
    a = v ^ sign;
    a = (a >= ((int32_t)256 << bits)) ? (((int32_t)256 << bits) - 1) : a;
#endif
    entry = &ern_table[a >> bits];
    a &= ((int32_t)1 << bits) - 1;
    return (entry[0] + (((entry[1] - entry[0]) * a) >> bits)) ^ sign;
}

/* tanh, Q`bits` to Q15; 32 steps of the table are 1. */
ERN_INLINE int32_t ern_tanh_q15(int32_t v, int32_t bits)
{
    return ern_lookup(v, bits - 5);
}
#endif

#if ERN_HAS_GATES
/* The sigmoid as (1 + tanh(v / 2)) / 2, Q`bits` to Q15, 0..32768. */
ERN_INLINE int32_t ern_sigmoid_q15(int32_t v, int32_t bits)
{
    return 16384 + ((ern_lookup(v, bits - 4) + 1) >> 1);
}
#endif

/* ---- cells: old[n_h] is h before this step ---------------------------------------------------------- */

#if ERN_HAS_DOT1_CELL
/* What a unit of a plain cell adds up to. */
ERN_INLINE int32_t ern_unit(const ern_layer *layer, int32_t u, const int16_t *x, const int16_t *old)
{
    const int8_t *w = &layer->w[u * (layer->n_x + layer->n_h)];
    const ern_row *row = &layer->rows[u];
    int32_t a[1] = {0};
    int32_t b[1] = {0};

    ern_dot1(w, x, layer->n_x, a);
    ern_dot1(&w[layer->n_x], old, layer->n_h, b);
    return ern_plus(ern_plus(row->bias, a[0], row->m_x), b[0], row->m_h);
}
#endif

#if ERN_HAS_INTEGER_TANH
static void ern_integer_tanh(const ern_layer *layer, const int16_t *x, const int16_t *old, int16_t *h)
{
    int32_t u;

    for (u = 0; u < layer->units; u++) {
        h[u] = (int16_t)ern_tanh_q15(ern_unit(layer, u, x, old), layer->bits);
    }
}
#endif

#if ERN_HAS_INTEGER_RELU
static void ern_integer_relu(const ern_layer *layer, const int16_t *x, const int16_t *old, int16_t *h)
{
    int32_t u;

    for (u = 0; u < layer->units; u++) {
        const int32_t v = ern_unit(layer, u, x, old);

        h[u] = (int16_t)((v < 0) ? 0 : ern_limited(v, 32767));
    }
}
#endif

#if ERN_HAS_INTEGER_LSTM
/* c in Q22, limited to -256..256; h = o tanh(c) in Q15. */
static void ern_integer_lstm(const ern_layer *layer, const int16_t *x, const int16_t *old, int32_t *c,
                             int16_t *h)
{
    const int8_t *w = layer->w;
    const ern_row *row = layer->rows;
    const int32_t bits = layer->bits;
    int32_t u;

    for (u = 0; u < layer->units; u++) {
        int32_t a[4] = {0, 0, 0, 0};
        int32_t b[4] = {0, 0, 0, 0};
        int32_t i;
        int32_t f;
        int32_t g;
        int32_t o;
        int32_t fresh;

        ern_dot4(w, x, layer->n_x, a);
        w += 4 * layer->n_x;
        i = ern_plus(row[0].bias, a[0], row[0].m_x);
        f = ern_plus(row[1].bias, a[1], row[1].m_x);
        g = ern_plus(row[2].bias, a[2], row[2].m_x);
        o = ern_plus(row[3].bias, a[3], row[3].m_x);
        ern_dot4(w, old, layer->n_h, b);
        w += 4 * layer->n_h;
        i = ern_sigmoid_q15(ern_plus(i, b[0], row[0].m_h), bits);
        f = ern_sigmoid_q15(ern_plus(f, b[1], row[1].m_h), bits);
        g = ern_tanh_q15(ern_plus(g, b[2], row[2].m_h), bits);
        o = ern_sigmoid_q15(ern_plus(o, b[3], row[3].m_h), bits);
        row += 4;
        fresh = ern_times(f, c[u]) + (((i * g) + 128) >> 8);
        fresh = ern_saturated(fresh, 31);
        c[u] = fresh;
        h[u] = (int16_t)(((o * ern_tanh_q15(fresh, 22)) + 16384) >> 15);
    }
}
#endif

#if ERN_HAS_INTEGER_COPY
/* As many of h as there are, then zeros to a whole group. */
static void ern_integer_copy(const int16_t *from, int16_t *to, int32_t n, int32_t whole)
{
    int32_t k;

    for (k = 0; k < whole; k++) {
        to[k] = (int16_t)((k < n) ? from[k] : 0);
    }
}
#endif

#if ERN_HAS_INTEGER_PROJECTION
/* h = W u, limited; n is filled up. */
static void ern_integer_projection(const int8_t *w, const int16_t *m, int32_t shift, const int16_t *u, int32_t n,
                                   int16_t *h, int32_t n_h)
{
    const int64_t limit = 32767;
    int32_t k;

    for (k = 0; k < n_h; k++) {
        int32_t sum[1] = {0};
        int64_t value;

        ern_dot1(w, u, n, sum);
        w += n;
        value = (((int64_t)sum[0] * m[k]) + ((int64_t)1 << (shift - 1))) >> shift;
        h[k] = (int16_t)((value > limit) ? limit : ((value < -limit) ? -limit : value));
    }
}
#endif

#if ERN_HAS_INTEGER_GRU
/* h is kept in Q24, so that a gate near 1 lets it move; the products read it in Q15. */
ERN_INLINE int32_t ern_q15(int32_t h)
{
    return ern_saturated((h + 256) >> 9, 16);
}

static void ern_integer_read(const int32_t *h, int16_t *q15, int32_t n, int32_t whole)
{
    int32_t k;

    for (k = 0; k < whole; k++) {
        q15[k] = (int16_t)((k < n) ? ern_q15(h[k]) : 0);
    }
}

/* Rows of a unit: r, z, n; b_h is the bias of the part of n that r multiplies; read: the new h in Q15. */
static void ern_integer_gru(const ern_layer *layer, const int32_t *b_h, const int16_t *x, const int16_t *old,
                            int32_t *h, int16_t *read)
{
    const int8_t *w = layer->w;
    const ern_row *row = layer->rows;
    const int32_t bits = layer->bits;
    int32_t u;

    for (u = 0; u < layer->units; u++) {
        int32_t a[3] = {0, 0, 0};
        int32_t b[3] = {0, 0, 0};
        int32_t r;
        int32_t z;
        int32_t n;
        int32_t fresh;
#if !ERN_HAS_DSP && !ERN_HAS_MVE
        int32_t part;
#endif

        ern_dot3(w, x, layer->n_x, a);
        w += 3 * layer->n_x;
        r = ern_plus(row[0].bias, a[0], row[0].m_x);
        z = ern_plus(row[1].bias, a[1], row[1].m_x);
        n = ern_plus(row[2].bias, a[2], row[2].m_x);
        ern_dot3(w, old, layer->n_h, b);
        w += 3 * layer->n_h;
        r = ern_sigmoid_q15(ern_plus(r, b[0], row[0].m_h), bits);
        z = ern_sigmoid_q15(ern_plus(z, b[1], row[1].m_h), bits);
        n = ern_tanh_q15(n + ern_times(r, ern_plus(b_h[u], b[2], row[2].m_h)), bits);
        row += 3;
        /* ((32768 - z) 512 n + z h + 2^14) >> 15. */
#if ERN_HAS_DSP || ERN_HAS_MVE
        fresh = (int32_t)((((int64_t)((32768 - z) * 512) * n) + ((int64_t)z * h[u]) + 16384) >> 15);
#else
        part = (32768 - z) * n;
        fresh = (part >> 6) + (z * (h[u] >> 15)) +
                ((((part & 63) * 512) + (z * (h[u] & 32767)) + 16384) >> 15);
#endif
        h[u] = fresh;
        read[u] = (int16_t)ern_q15(fresh);
    }
}
#endif

#if ERN_HAS_INTEGER_HEAD
/* y = W h in integers, then one product and one sum in float32, each rounded; n is filled up. */
static void ern_integer_head(const int8_t *w, const float *scale, const float *bias, const int16_t *h, int32_t n,
                             float *y, int32_t n_y)
{
    int32_t k;

    for (k = 0; k < n_y; k++) {
        int32_t sum[1] = {0};
        float product;

        ern_dot1(w, h, n, sum);
        w += n;
        product = (float)sum[0] * scale[k];
        y[k] = product + bias[k];
    }
}
#endif

#if ERN_HAS_INTEGER_OUT
static void ern_integer_out(const int16_t *h, float unit, float *y, int32_t n)
{
    int32_t k;

    for (k = 0; k < n; k++) {
        y[k] = (float)h[k] * unit;
    }
}
#endif

#if ERN_HAS_INTEGER_RECTIFY
static void ern_integer_rectify(float *y, int32_t n)
{
    int32_t k;

    for (k = 0; k < n; k++) {
        y[k] = (y[k] < 0.0f) ? 0.0f : y[k];
    }
}
#endif
