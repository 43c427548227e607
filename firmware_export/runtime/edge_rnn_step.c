/* ---- arithmetic of the network: float32, the order of every sum is part of the model ------------- */

#define ERN_LANES 16

#if ERN_HAS_FUSED
/* Rounded once: the processor's instruction. */
static float ern_fma(float a, float b, float c)
{
    return __builtin_fmaf(a, b, c);
}
#else
/* Rounded twice, as on a core without a fused multiply-add. */
static float ern_fma(float a, float b, float c)
{
    const float product = a * b;

    return product + c;
}
#endif

#if ERN_HAS_TANH
/* tanh as x P(s) / Q(s) with s = x^2; the clamps let a NaN through, so that a fault shows. */
static float ern_tanh(float value)
{
    const float low = (value > 8.0f) ? 8.0f : value;
    const float x = (low < -8.0f) ? -8.0f : low;
    const float s = x * x;
    float p;
    float q;

    p = ern_fma(0x1.05aa8cp-26f, s, 0x1.6f56bp-16f);
    q = ern_fma(0x1.c98edap-21f, s, 0x1.65b454p-12f);
    p = ern_fma(p, s, 0x1.d423d6p-9f);
    q = ern_fma(q, s, 0x1.acae0ep-6f);
    p = ern_fma(p, s, 0x1.135802p-3f);
    q = ern_fma(q, s, 0x1.df0152p-2f);
    p = ern_fma(p, s, 1.0f);
    q = ern_fma(q, s, 1.0f);
    return (x * p) / q;
}
#endif

#if ERN_HAS_GATE
/* The sigmoid of 2t: the weights of sigmoid gates are stored halved. */
static float ern_gate(float t)
{
    return ern_fma(ern_tanh(t), 0.5f, 0.5f);
}
#endif

#if ERN_HAS_RELU
static float ern_relu(float x)
{
    return (x < 0.0f) ? 0.0f : x;
}
#endif

#if ERN_HAS_SOFTMAX
/* exp of x <= 0 as 2^k e^r, k the integer nearest to x log2(e). */
static float ern_exp(float value)
{
    const float x = (value < -87.0f) ? -87.0f : value;
    union {
        float number;
        uint32_t bits;
    } shifted, power;
    float k;
    float r;
    float p;

    shifted.number = ern_fma(x, 0x1.715476p+0f, 12582912.0f);
    k = shifted.number - 12582912.0f;
    r = ern_fma(k, 0x1.bd0106p-13f, ern_fma(k, -0x1.63p-1f, x));
    p = ern_fma(0x1.6a23dp-10f, r, 0x1.123a2p-7f);
    p = ern_fma(p, r, 0x1.5558f2p-5f);
    p = ern_fma(p, r, 0x1.555492p-3f);
    p = ern_fma(p, r, 0x1.fffffcp-2f);
    p = ern_fma(r * r, p, r) + 1.0f;
    power.bits = (shifted.bits - (0x4B400000u - 127u)) << 23;
    return p * power.number;
}
#endif

#if ERN_HAS_CHAINS
/* sum + w x over every step-th of n numbers, one after the other; weights lie `stride` apart. */
static float ern_chain(float first, const float *w, int32_t stride, const float *x, int32_t n, int32_t step)
{
    float sum = first;
    int32_t k;

    for (k = 0; k < n; k += step) {
        sum = ern_fma(x[k], *w, sum);
        w += stride;
    }
    return sum;
}
#endif

#if ERN_HAS_SUMS
/* The sum of 16 partial sums, as a tree: s[j] + s[j + n] for n = 8, 4, 2, 1. */
static float ern_tree(float s[ERN_LANES])
{
    int32_t n;
    int32_t j;

    for (n = ERN_LANES / 2; n > 0; n /= 2) {
        for (j = 0; j < n; j++) {
            s[j] = s[j] + s[j + n];
        }
    }
    return s[0];
}

static void ern_clear(float s[ERN_LANES])
{
    int32_t j;

    for (j = 0; j < ERN_LANES; j++) {
        s[j] = 0.0f;
    }
}
#endif

/* y[n_y] = W x + b: term k of a row goes to partial sum k mod 16, and the sums are added as a tree. */

#if ERN_HAS_DENSE16
/* n_x a multiple of 16: partial sums j, j+1 and their partners 4, 8 and 12 further on stay in registers. */
static float ern_pair(const float *w, const float *x, int32_t n_x, float *second)
{
    float s0 = 0.0f;
    float s1 = 0.0f;
    float s4 = 0.0f;
    float s5 = 0.0f;
    float s8 = 0.0f;
    float s9 = 0.0f;
    float s12 = 0.0f;
    float s13 = 0.0f;
    int32_t k;

    for (k = 0; k < n_x; k += ERN_LANES) {
        s0 = ern_fma(w[k], x[k], s0);
        s1 = ern_fma(w[k + 1], x[k + 1], s1);
        s4 = ern_fma(w[k + 4], x[k + 4], s4);
        s5 = ern_fma(w[k + 5], x[k + 5], s5);
        s8 = ern_fma(w[k + 8], x[k + 8], s8);
        s9 = ern_fma(w[k + 9], x[k + 9], s9);
        s12 = ern_fma(w[k + 12], x[k + 12], s12);
        s13 = ern_fma(w[k + 13], x[k + 13], s13);
    }
    *second = (s1 + s9) + (s5 + s13);
    return (s0 + s8) + (s4 + s12);
}

static void ern_dense16(const float *bias, const float *w, const float *x, int32_t n_x, int32_t n_y,
                        float *y)
{
    int32_t o;

    for (o = 0; o < n_y; o++) {
        float s1;
        float s3;
        const float s0 = ern_pair(w, x, n_x, &s1);
        const float s2 = ern_pair(&w[2], &x[2], n_x, &s3);

        y[o] = ((s0 + s2) + (s1 + s3)) + bias[o];
        w += n_x;
    }
}
#endif

#if ERN_HAS_DENSE
/* Any n_x. The terms that are missing to a multiple of 16 count as +0: adding it turns a -0 into +0. */
#if ERN_HAS_CHAINS
#if defined(__GNUC__)
__attribute__((noinline))
#endif
static float ern_partial(const float *w, const float *x, int32_t n_x, int32_t j)
{
    const int32_t rest = n_x % ERN_LANES;
    float sum = 0.0f;

    if (j < n_x) {
        sum = ern_chain(0.0f, &w[j], ERN_LANES, &x[j], n_x - j, ERN_LANES);
    }
    return ((rest > 0) && (j >= rest)) ? (sum + 0.0f) : sum;
}

static void ern_dense(const float *bias, const float *w, const float *x, int32_t n_x, int32_t n_y,
                      float *y)
{
    int32_t o;
    int32_t j;

    for (o = 0; o < n_y; o++) {
        float s[4];

        for (j = 0; j < 4; j++) {
            const float a = ern_partial(w, x, n_x, j) + ern_partial(w, x, n_x, j + 8);

            s[j] = a + (ern_partial(w, x, n_x, j + 4) + ern_partial(w, x, n_x, j + 12));
        }
        y[o] = ((s[0] + s[2]) + (s[1] + s[3])) + bias[o];
        w += n_x;
    }
}
#else
static void ern_dense(const float *bias, const float *w, const float *x, int32_t n_x, int32_t n_y,
                      float *y)
{
    const int32_t whole = n_x - (n_x % ERN_LANES);
    int32_t o;
    int32_t k;
    int32_t j;

    for (o = 0; o < n_y; o++) {
        float s[ERN_LANES];

        ern_clear(s);
        for (k = 0; k < whole; k += ERN_LANES) {
            for (j = 0; j < ERN_LANES; j++) {
                s[j] = ern_fma(w[k + j], x[k + j], s[j]);
            }
        }
        if (whole < n_x) {
            for (j = 0; j < (n_x - whole); j++) {
                s[j] = ern_fma(w[whole + j], x[whole + j], s[j]);
            }
            for (; j < ERN_LANES; j++) {
                s[j] = s[j] + 0.0f;
            }
        }
        y[o] = ern_tree(s) + bias[o];
        w += n_x;
    }
}
#endif
#endif

#if ERN_HAS_RELU
static void ern_relu_all(float *y, int32_t n)
{
    int32_t k;

    for (k = 0; k < n; k++) {
        y[k] = ern_relu(y[k]);
    }
}
#endif

#if ERN_HAS_TANH_ALL
static void ern_tanh_all(float *y, int32_t n)
{
    int32_t k;

    for (k = 0; k < n; k++) {
        y[k] = ern_tanh(y[k]);
    }
}
#endif

#if ERN_HAS_SIGMOID_ALL
static void ern_sigmoid_all(float *y, int32_t n)
{
    int32_t k;

    for (k = 0; k < n; k++) {
        y[k] = ern_gate(y[k] * 0.5f);
    }
}
#endif

#if ERN_HAS_SOFTMAX
static void ern_softmax(float *y, int32_t n)
{
    float s[ERN_LANES];
    float largest = y[0];
    float total;
    int32_t k;

    ern_clear(s);
    for (k = 1; k < n; k++) {
        largest = (y[k] > largest) ? y[k] : largest;
    }
    for (k = 0; k < n; k++) {
        y[k] = ern_exp(y[k] - largest);
        s[k % ERN_LANES] = s[k % ERN_LANES] + y[k];
    }
    for (k = n; (k % ERN_LANES) != 0; k++) {
        s[k % ERN_LANES] = s[k % ERN_LANES] + 0.0f;
    }
    total = ern_tree(s);
    for (k = 0; k < n; k++) {
        y[k] = y[k] / total;
    }
}
#endif

/* ---- cells ---------------------------------------------------------------------------------------
 * Weights of a unit: the biases, then the gates of input row 0, 1, ..., then of row 0, 1, ... of h.
 * Every gate has two chains of sums: a takes the bias, the inputs and the even rows of h, b the odd
 * rows. old[n_r] is h before this step and must not overlap h[n_h]. */

#if ERN_HAS_CHAINS
/* One gate's two chains added; w are its weights, one of `gates` gates. Floats are computed in software here, so
 * nothing is gained by more gates at a time, and code and stack are. */
#if defined(__GNUC__)
__attribute__((noinline))
#endif
static float ern_sum(float bias, const float *w, int32_t gates, const float *x, int32_t n_x, const float *old,
                     int32_t n_r)
{
    const float *w_h = &w[gates * n_x];
    const float a = ern_chain(bias, w, gates, x, n_x, 1);
    const float even = ern_chain(a, w_h, 2 * gates, old, n_r, 2);

    return even + ern_chain(0.0f, &w_h[gates], 2 * gates, &old[1], n_r - 1, 2);
}
#endif

#if ERN_HAS_RNN
/* The sums alone: tanh or relu follows for all units at once. */
static void ern_rnn(const float *w, const float *x, int32_t n_x, const float *old, int32_t n_h, float *h)
{
    int32_t u;
#if ERN_HAS_CHAINS

    for (u = 0; u < n_h; u++) {
        h[u] = ern_sum(w[0], &w[1], 1, x, n_x, old, n_h);
        w += 1 + n_x + n_h;
    }
}
#else
    int32_t k;

    for (u = 0; u < n_h; u++) {
        float a = w[0];
        float b = 0.0f;

        w += 1;
        for (k = 0; k < n_x; k++) {
            a = ern_fma(x[k], w[k], a);
        }
        w += n_x;
        for (k = 0; k < (n_h - 1); k += 2) {
            a = ern_fma(old[k], w[k], a);
            b = ern_fma(old[k + 1], w[k + 1], b);
        }
        if (k < n_h) {
            a = ern_fma(old[k], w[k], a);
        }
        w += n_h;
        h[u] = a + b;
    }
}
#endif
#endif

#if ERN_HAS_LSTM
static void ern_lstm(const float *w, const float *x, int32_t n_x, const float *old, int32_t n_r, float *c,
                     float *h, int32_t n_h)
{
    int32_t u;
#if ERN_HAS_CHAINS

    for (u = 0; u < n_h; u++) {
        const float i = ern_gate(ern_sum(w[0], &w[4], 4, x, n_x, old, n_r));
        float f = ern_gate(ern_sum(w[1], &w[5], 4, x, n_x, old, n_r));
        const float g = ern_tanh(ern_sum(w[2], &w[6], 4, x, n_x, old, n_r));
        const float o = ern_gate(ern_sum(w[3], &w[7], 4, x, n_x, old, n_r));

        w += 4 * (1 + n_x + n_r);
        f = ern_fma(f, c[u], i * g);
        c[u] = f;
        h[u] = o * ern_tanh(f);
    }
}
#else
    int32_t k;

    for (u = 0; u < n_h; u++) {
        float i = w[0];
        float f = w[1];
        float g = w[2];
        float o = w[3];
        float ib = 0.0f;
        float fb = 0.0f;
        float gb = 0.0f;
        float ob = 0.0f;

        w += 4;
        for (k = 0; k < (n_x - 1); k += 2) {
            const float v0 = x[k];
            const float v1 = x[k + 1];

            i = ern_fma(v0, w[0], i);
            f = ern_fma(v0, w[1], f);
            g = ern_fma(v0, w[2], g);
            o = ern_fma(v0, w[3], o);
            i = ern_fma(v1, w[4], i);
            f = ern_fma(v1, w[5], f);
            g = ern_fma(v1, w[6], g);
            o = ern_fma(v1, w[7], o);
            w += 8;
        }
        if (k < n_x) {
            const float v0 = x[k];

            i = ern_fma(v0, w[0], i);
            f = ern_fma(v0, w[1], f);
            g = ern_fma(v0, w[2], g);
            o = ern_fma(v0, w[3], o);
            w += 4;
        }
        for (k = 0; k < (n_r - 3); k += 4) {
            const float v0 = old[k];
            const float v1 = old[k + 1];
            const float v2 = old[k + 2];
            const float v3 = old[k + 3];

            i = ern_fma(v0, w[0], i);
            f = ern_fma(v0, w[1], f);
            g = ern_fma(v0, w[2], g);
            o = ern_fma(v0, w[3], o);
            ib = ern_fma(v1, w[4], ib);
            fb = ern_fma(v1, w[5], fb);
            gb = ern_fma(v1, w[6], gb);
            ob = ern_fma(v1, w[7], ob);
            i = ern_fma(v2, w[8], i);
            f = ern_fma(v2, w[9], f);
            g = ern_fma(v2, w[10], g);
            o = ern_fma(v2, w[11], o);
            ib = ern_fma(v3, w[12], ib);
            fb = ern_fma(v3, w[13], fb);
            gb = ern_fma(v3, w[14], gb);
            ob = ern_fma(v3, w[15], ob);
            w += 16;
        }
        for (; k < (n_r - 1); k += 2) {
            const float v0 = old[k];
            const float v1 = old[k + 1];

            i = ern_fma(v0, w[0], i);
            f = ern_fma(v0, w[1], f);
            g = ern_fma(v0, w[2], g);
            o = ern_fma(v0, w[3], o);
            ib = ern_fma(v1, w[4], ib);
            fb = ern_fma(v1, w[5], fb);
            gb = ern_fma(v1, w[6], gb);
            ob = ern_fma(v1, w[7], ob);
            w += 8;
        }
        if (k < n_r) {
            const float v0 = old[k];

            i = ern_fma(v0, w[0], i);
            f = ern_fma(v0, w[1], f);
            g = ern_fma(v0, w[2], g);
            o = ern_fma(v0, w[3], o);
            w += 4;
        }
        i = ern_gate(i + ib);
        f = ern_gate(f + fb);
        g = ern_tanh(g + gb);
        o = ern_gate(o + ob);
        f = ern_fma(f, c[u], i * g);
        c[u] = f;
        h[u] = o * ern_tanh(f);
    }
}
#endif
#endif

#if ERN_HAS_GRU
static void ern_gru(const float *w, const float *x, int32_t n_x, const float *old, int32_t n_h, float *h)
{
    int32_t u;
#if ERN_HAS_CHAINS

    for (u = 0; u < n_h; u++) {
        const float r = ern_gate(ern_sum(w[0], &w[4], 3, x, n_x, old, n_h));
        const float z = ern_gate(ern_sum(w[1], &w[5], 3, x, n_x, old, n_h));
        const float n_of_x = ern_chain(w[2], &w[6], 3, x, n_x, 1);
        const float n_of_h = ern_sum(w[3], &w[6 + (3 * n_x)], 3, x, 0, old, n_h);
        const float n = ern_tanh(ern_fma(r, n_of_h, n_of_x));

        w += 4 + (3 * (n_x + n_h));
        h[u] = ern_fma(z, old[u] - n, n);
    }
}
#else
    int32_t k;

    for (u = 0; u < n_h; u++) {
        float r = w[0];
        float z = w[1];
        float nx = w[2];
        float nh = w[3];
        float rb = 0.0f;
        float zb = 0.0f;
        float nb = 0.0f;
        float n;

        w += 4;
        for (k = 0; k < (n_x - 1); k += 2) {
            const float v0 = x[k];
            const float v1 = x[k + 1];

            r = ern_fma(v0, w[0], r);
            z = ern_fma(v0, w[1], z);
            nx = ern_fma(v0, w[2], nx);
            r = ern_fma(v1, w[3], r);
            z = ern_fma(v1, w[4], z);
            nx = ern_fma(v1, w[5], nx);
            w += 6;
        }
        if (k < n_x) {
            const float v0 = x[k];

            r = ern_fma(v0, w[0], r);
            z = ern_fma(v0, w[1], z);
            nx = ern_fma(v0, w[2], nx);
            w += 3;
        }
        for (k = 0; k < (n_h - 7); k += 8) {
            const float v0 = old[k];
            const float v1 = old[k + 1];
            const float v2 = old[k + 2];
            const float v3 = old[k + 3];
            const float v4 = old[k + 4];
            const float v5 = old[k + 5];
            const float v6 = old[k + 6];
            const float v7 = old[k + 7];

            r = ern_fma(v0, w[0], r);
            z = ern_fma(v0, w[1], z);
            nh = ern_fma(v0, w[2], nh);
            rb = ern_fma(v1, w[3], rb);
            zb = ern_fma(v1, w[4], zb);
            nb = ern_fma(v1, w[5], nb);
            r = ern_fma(v2, w[6], r);
            z = ern_fma(v2, w[7], z);
            nh = ern_fma(v2, w[8], nh);
            rb = ern_fma(v3, w[9], rb);
            zb = ern_fma(v3, w[10], zb);
            nb = ern_fma(v3, w[11], nb);
            r = ern_fma(v4, w[12], r);
            z = ern_fma(v4, w[13], z);
            nh = ern_fma(v4, w[14], nh);
            rb = ern_fma(v5, w[15], rb);
            zb = ern_fma(v5, w[16], zb);
            nb = ern_fma(v5, w[17], nb);
            r = ern_fma(v6, w[18], r);
            z = ern_fma(v6, w[19], z);
            nh = ern_fma(v6, w[20], nh);
            rb = ern_fma(v7, w[21], rb);
            zb = ern_fma(v7, w[22], zb);
            nb = ern_fma(v7, w[23], nb);
            w += 24;
        }
        for (; k < (n_h - 1); k += 2) {
            const float v0 = old[k];
            const float v1 = old[k + 1];

            r = ern_fma(v0, w[0], r);
            z = ern_fma(v0, w[1], z);
            nh = ern_fma(v0, w[2], nh);
            rb = ern_fma(v1, w[3], rb);
            zb = ern_fma(v1, w[4], zb);
            nb = ern_fma(v1, w[5], nb);
            w += 6;
        }
        if (k < n_h) {
            const float v0 = old[k];

            r = ern_fma(v0, w[0], r);
            z = ern_fma(v0, w[1], z);
            nh = ern_fma(v0, w[2], nh);
            w += 3;
        }
        r = ern_gate(r + rb);
        z = ern_gate(z + zb);
        n = ern_tanh(ern_fma(r, nh + nb, nx));
        h[u] = ern_fma(z, old[u] - n, n);
    }
}
#endif
#endif
