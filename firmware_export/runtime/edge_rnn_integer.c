/* ---- arithmetic of the network: int8 weights, int16 activations, int32 cells ------------------------
 *
 * Q15: 32768 stands for 1. Every sum is exact, and no width can overflow: that was checked with these very
 * weights when this file was made. */

typedef char ern_shift_rounds_down[((-1 >> 1) == -1) ? 1 : -1];

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
static int32_t ern_limited(int32_t value, int32_t limit)
{
    if (value > limit) {
        return limit;
    }
    return (value < -limit) ? -limit : value;
}
#endif

static int32_t ern_dot(const int8_t *w, const int16_t *x, int32_t n)
{
    int32_t sum = 0;
    int32_t k;

    for (k = 0; k < (n - 3); k += 4) {
        sum += (int32_t)w[k] * x[k];
        sum += (int32_t)w[k + 1] * x[k + 1];
        sum += (int32_t)w[k + 2] * x[k + 2];
        sum += (int32_t)w[k + 3] * x[k + 3];
    }
    for (; k < n; k++) {
        sum += (int32_t)w[k] * x[k];
    }
    return sum;
}

/* A 64-bit sum brought to a row's format, rounded. */
static int32_t ern_scaled(int64_t sum, int32_t shift)
{
    return (int32_t)((sum + ((int64_t)1 << (shift - 1))) >> shift);
}

#if ERN_HAS_TABLE
/* |v| in steps of the table, a line drawn between two entries. */
static int32_t ern_lookup(int32_t a, int32_t bits)
{
    const int32_t i = a >> bits;
    const int32_t r = a & (((int32_t)1 << bits) - 1);
    const int32_t low = ern_table[i];

    return low + ((((ern_table[i + 1] - low) * r) + ((int32_t)1 << (bits - 1))) >> bits);
}

/* tanh, Q15 to Q15. */
static int32_t ern_tanh_q15(int32_t v)
{
    const int32_t a = (v < 0) ? -v : v;
    const int32_t y = ern_lookup((a > 262143) ? 262143 : a, 10);

    return (v < 0) ? -y : y;
}
#endif

#if ERN_HAS_GATES
/* The sigmoid as (1 + tanh(v / 2)) / 2, Q15 to Q15, 0..32768. */
static int32_t ern_sigmoid_q15(int32_t v)
{
    const int32_t a = (v < 0) ? -v : v;
    const int32_t s = 16384 + ((ern_lookup((a > 524287) ? 524287 : a, 11) + 1) >> 1);

    return (v < 0) ? (32768 - s) : s;
}
#endif

/* One layer's constants: the rows of gate 0 for all units, then of gate 1, as PyTorch has them. */
typedef struct {
    const int8_t *w_x;    /* rows of n_x */
    const int8_t *w_h;    /* rows of n_h */
    const int32_t *m_x;   /* what a step of a row's sum is worth, times 2^shift */
    const int32_t *m_h;
    const int32_t *bias;
    int32_t n_x;
    int32_t n_h;
    int32_t units;
    int32_t shift;
} ern_rows;

/* What a gate of a unit adds up to. */
static int32_t ern_gate_sum(const ern_rows *r, int32_t row, const int16_t *x, const int16_t *h)
{
    const int64_t from_x = (int64_t)ern_dot(&r->w_x[row * r->n_x], x, r->n_x) * r->m_x[row];
    const int64_t from_h = (int64_t)ern_dot(&r->w_h[row * r->n_h], h, r->n_h) * r->m_h[row];

    return ern_scaled(from_x + from_h, r->shift) + r->bias[row];
}

#if ERN_HAS_INTEGER_TANH
static void ern_integer_tanh(const ern_rows *r, const int16_t *x, const int16_t *old, int16_t *h)
{
    int32_t u;

    for (u = 0; u < r->units; u++) {
        h[u] = (int16_t)ern_tanh_q15(ern_gate_sum(r, u, x, old));
    }
}
#endif

#if ERN_HAS_INTEGER_RELU
static void ern_integer_relu(const ern_rows *r, const int16_t *x, const int16_t *old, int16_t *h)
{
    int32_t u;

    for (u = 0; u < r->units; u++) {
        const int32_t v = ern_gate_sum(r, u, x, old);

        h[u] = (int16_t)((v < 0) ? 0 : ern_limited(v, 32767));
    }
}
#endif

#if ERN_HAS_INTEGER_LSTM
/* c in Q22, limited to +-256; h = o tanh(c) in Q15. */
static void ern_integer_lstm(const ern_rows *r, const int16_t *x, const int16_t *old, int32_t *c, int16_t *h)
{
    const int32_t n = r->units;
    int32_t u;

    for (u = 0; u < n; u++) {
        const int32_t i = ern_sigmoid_q15(ern_gate_sum(r, u, x, old));
        const int32_t f = ern_sigmoid_q15(ern_gate_sum(r, n + u, x, old));
        const int32_t g = ern_tanh_q15(ern_gate_sum(r, (2 * n) + u, x, old));
        const int32_t o = ern_sigmoid_q15(ern_gate_sum(r, (3 * n) + u, x, old));
        const int32_t kept = ern_scaled((int64_t)f * c[u], 15);

        c[u] = ern_limited(kept + (((i * g) + 128) >> 8), 1073741824);
        h[u] = (int16_t)(((o * ern_tanh_q15((c[u] + 64) >> 7)) + 16384) >> 15);
    }
}
#endif

#if ERN_HAS_INTEGER_COPY
static void ern_integer_copy(const int16_t *from, int16_t *to, int32_t n)
{
    int32_t k;

    for (k = 0; k < n; k++) {
        to[k] = from[k];
    }
}
#endif

#if ERN_HAS_INTEGER_PROJECTION
/* h = W u, limited. */
static void ern_integer_projection(const int8_t *w, const int32_t *m, int32_t shift, const int16_t *u, int32_t n,
                                   int16_t *h, int32_t n_h)
{
    const int64_t limit = 32767;
    int32_t k;

    for (k = 0; k < n_h; k++) {
        const int64_t sum = (int64_t)ern_dot(&w[k * n], u, n) * m[k];
        const int64_t value = (sum + ((int64_t)1 << (shift - 1))) >> shift;

        h[k] = (int16_t)((value > limit) ? limit : ((value < -limit) ? -limit : value));
    }
}
#endif

#if ERN_HAS_INTEGER_GRU
/* h is kept in Q24, so that a gate near 1 lets it move; the products read it in Q15. */
static void ern_integer_read(const int32_t *h, int16_t *q15, int32_t n)
{
    int32_t k;

    for (k = 0; k < n; k++) {
        q15[k] = (int16_t)ern_limited((h[k] + 256) >> 9, 32767);
    }
}

static void ern_integer_gru(const ern_rows *r, const int16_t *x, const int16_t *old, int32_t *h)
{
    const int32_t n = r->units;
    int32_t u;

    for (u = 0; u < n; u++) {
        const int32_t row = (2 * n) + u;
        const int32_t reset = ern_sigmoid_q15(ern_gate_sum(r, u, x, old));
        const int32_t z = ern_sigmoid_q15(ern_gate_sum(r, n + u, x, old));
        const int64_t from_x = (int64_t)ern_dot(&r->w_x[row * r->n_x], x, r->n_x) * r->m_x[row];
        const int64_t from_h = (int64_t)ern_dot(&r->w_h[row * r->n_h], old, r->n_h) * r->m_h[row];
        const int32_t v_x = ern_scaled(from_x, r->shift) + r->bias[row];
        const int32_t v_h = ern_scaled(from_h, r->shift) + r->bias[row + n];
        const int32_t fresh = ern_tanh_q15(v_x + ern_scaled((int64_t)reset * v_h, 15));
        const int64_t blend = ((int64_t)(32768 - z) * (fresh * 512)) + ((int64_t)z * h[u]);

        h[u] = ern_scaled(blend, 15);
    }
}
#endif

#if ERN_HAS_INTEGER_HEAD
/* y = W h in integers, then one product and one sum in float32, each rounded. */
static void ern_integer_head(const int8_t *w, const float *scale, const float *bias, const int16_t *h, int32_t n,
                             float *y, int32_t n_y)
{
    int32_t k;

    for (k = 0; k < n_y; k++) {
        const float product = (float)ern_dot(&w[k * n], h, n) * scale[k];

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
