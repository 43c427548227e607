#include "edge_rnn_step.h"

#if ERN_FUSED
#define ern_fma(a, b, c) __builtin_fmaf((a), (b), (c))
#else
static float ern_fma(float a, float b, float c)
{
    const float product = a * b;
    return product + c;
}
#endif

/* ---- activations ------------------------------------------------------------------------------- */

/* x P(s) / Q(s) with s = x^2; the clamps let a NaN through, so that a fault shows. */
static float ern_tanh(float x)
{
    float s, p, q;
    x = x > 8.0f ? 8.0f : x;
    x = x < -8.0f ? -8.0f : x;
    s = x * x;
    p = ern_fma(0x1.05aa8cp-26f, s, 0x1.6f56bp-16f);
    p = ern_fma(p, s, 0x1.d423d6p-9f);
    p = ern_fma(p, s, 0x1.135802p-3f);
    p = ern_fma(p, s, 1.0f);
    q = ern_fma(0x1.c98edap-21f, s, 0x1.65b454p-12f);
    q = ern_fma(q, s, 0x1.acae0ep-6f);
    q = ern_fma(q, s, 0x1.df0152p-2f);
    q = ern_fma(q, s, 1.0f);
    return (x * p) / q;
}

/* The sigmoid of 2t: the packed weights of sigmoid gates are halved. */
static float ern_gate(float t)
{
    return ern_fma(ern_tanh(t), 0.5f, 0.5f);
}

static float ern_relu(float x)
{
    return x < 0.0f ? 0.0f : x;
}

/* exp of x <= 0: 2^k e^r with k the integer nearest to x log2(e). */
static float ern_exp(float x)
{
    union {
        float f;
        uint32_t u;
    } shifted, power;
    float k, r, p;
    x = x < -87.0f ? -87.0f : x;
    shifted.f = ern_fma(x, 0x1.715476p+0f, 12582912.0f);
    k = shifted.f - 12582912.0f;
    r = ern_fma(k, 0x1.bd0106p-13f, ern_fma(k, -0x1.63p-1f, x));
    p = ern_fma(0x1.6a23dp-10f, r, 0x1.123a2p-7f);
    p = ern_fma(p, r, 0x1.5558f2p-5f);
    p = ern_fma(p, r, 0x1.555492p-3f);
    p = ern_fma(p, r, 0x1.fffffcp-2f);
    p = ern_fma(r * r, p, r) + 1.0f;
    power.u = (shifted.u - (0x4B400000u - 127u)) << 23;
    return p * power.f;
}

/* ---- sums -------------------------------------------------------------------------------------- */

static float ern_tree(float s[ERN_PAD])
{
    int32_t n, j;
    for (n = ERN_PAD / 2; n > 0; n /= 2) {
        for (j = 0; j < n; j++) {
            s[j] = s[j] + s[j + n];
        }
    }
    return s[0];
}

static int32_t ern_padded(int32_t n)
{
    return (n + ERN_PAD - 1) / ERN_PAD * ERN_PAD;
}

void ern_dense(const float *w, const float *x, int32_t n_x, int32_t n_y, float *y)
{
    const int32_t rows = ern_padded(n_x);
    const float *row = w + ern_padded(n_y);
    int32_t o, k, j;
    for (o = 0; o < n_y; o++) {
        float s[ERN_PAD] = {0.0f};
        for (k = 0; k < rows; k += ERN_PAD) {
            for (j = 0; j < ERN_PAD; j++) {
                s[j] = ern_fma(row[k + j], x[k + j], s[j]);
            }
        }
        y[o] = ern_tree(s) + w[o];
        row += rows;
    }
    for (o = n_y; o < ern_padded(n_y); o++) {
        y[o] = 0.0f;
    }
}

void ern_activate(ern_activation kind, float *y, int32_t n_y)
{
    int32_t k;
    if (kind == ERN_SOFTMAX) {
        float s[ERN_PAD] = {0.0f};
        float largest = y[0];
        float total;
        for (k = 1; k < n_y; k++) {
            largest = y[k] > largest ? y[k] : largest;
        }
        for (k = 0; k < n_y; k++) {
            y[k] = ern_exp(y[k] - largest);
            s[k % ERN_PAD] = s[k % ERN_PAD] + y[k];
        }
        total = ern_tree(s);
        for (k = 0; k < n_y; k++) {
            y[k] = y[k] / total;
        }
        return;
    }
    for (k = 0; k < n_y; k++) {
        switch (kind) {
        case ERN_RELU:
            y[k] = ern_relu(y[k]);
            break;
        case ERN_TANH:
            y[k] = ern_tanh(y[k]);
            break;
        case ERN_SIGMOID:
            y[k] = ern_gate(y[k] * 0.5f);
            break;
        case ERN_NONE:
        case ERN_SOFTMAX:
        default:
            break;
        }
    }
}

/* ---- cells: chain a takes the bias, the input rows and the even rows of h, chain b the odd rows -- */

void ern_rnn(const float *w, const float *x, int32_t n_x, const float *old, int32_t n_h, float *new_h,
             int32_t relu)
{
    int32_t u, j;
    for (u = 0; u < n_h; u++) {
        float a = *w++;
        float b = 0.0f;
        for (j = 0; j < n_x; j++) {
            a = ern_fma(x[j], *w++, a);
        }
        for (j = 0; j < n_h; j++) {
            if (j % 2 == 0) {
                a = ern_fma(old[j], *w++, a);
            } else {
                b = ern_fma(old[j], *w++, b);
            }
        }
        new_h[u] = relu ? ern_relu(a + b) : ern_tanh(a + b);
    }
}

void ern_lstm(const float *w, const float *x, int32_t n_x, const float *old, int32_t n_r, float *c,
              float *new_h, int32_t n_h)
{
    int32_t u, j, gate;
    for (u = 0; u < n_h; u++) {
        float a[4];
        float b[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        float i, f, g, o;
        for (gate = 0; gate < 4; gate++) {
            a[gate] = *w++;
        }
        for (j = 0; j < n_x; j++) {
            for (gate = 0; gate < 4; gate++) {
                a[gate] = ern_fma(x[j], *w++, a[gate]);
            }
        }
        for (j = 0; j < n_r; j++) {
            float *chain = j % 2 == 0 ? a : b;
            for (gate = 0; gate < 4; gate++) {
                chain[gate] = ern_fma(old[j], *w++, chain[gate]);
            }
        }
        i = ern_gate(a[0] + b[0]);
        f = ern_gate(a[1] + b[1]);
        g = ern_tanh(a[2] + b[2]);
        o = ern_gate(a[3] + b[3]);
        c[u] = ern_fma(f, c[u], i * g);
        new_h[u] = o * ern_tanh(c[u]);
    }
}

void ern_gru(const float *w, const float *x, int32_t n_x, const float *old, int32_t n_h, float *new_h)
{
    int32_t u, j;
    for (u = 0; u < n_h; u++) {
        float r = w[0], z = w[1], nx = w[2], nh = w[3];
        float rb = 0.0f, zb = 0.0f, nb = 0.0f;
        float n;
        w += 4;
        for (j = 0; j < n_x; j++, w += 3) {
            r = ern_fma(x[j], w[0], r);
            z = ern_fma(x[j], w[1], z);
            nx = ern_fma(x[j], w[2], nx);
        }
        for (j = 0; j < n_h; j++, w += 3) {
            if (j % 2 == 0) {
                r = ern_fma(old[j], w[0], r);
                z = ern_fma(old[j], w[1], z);
                nh = ern_fma(old[j], w[2], nh);
            } else {
                rb = ern_fma(old[j], w[0], rb);
                zb = ern_fma(old[j], w[1], zb);
                nb = ern_fma(old[j], w[2], nb);
            }
        }
        r = ern_gate(r + rb);
        z = ern_gate(z + zb);
        n = ern_tanh(ern_fma(r, nh + nb, nx));
        new_h[u] = ern_fma(z, old[u] - n, n);
    }
}
