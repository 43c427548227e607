/* One LSTM or GRU layer as most people would write it in C: loops over rows, expf and tanhf of the library.
 *
 * Weights and gate order are PyTorch's (lstm i f g o, gru r z n), row-major. h, c: (H), read and written;
 * z: scratch of 8 H. */
#include <math.h>
#include <stddef.h>

static float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

static void rows(const float *w, const float *b, const float *x, size_t n, size_t columns, float *out)
{
    for (size_t row = 0; row < n; row++) {
        float sum = b[row];
        for (size_t k = 0; k < columns; k++)
            sum += w[row * columns + k] * x[k];
        out[row] = sum;
    }
}

void layer(int lstm, size_t inputs, size_t size, const float *w_ih, const float *w_hh, const float *b_ih,
           const float *b_hh, const float *x, float *h, float *c, float *z)
{
    size_t gates = lstm ? 4 : 3;
    float *from_x = z, *from_h = z + gates * size;
    rows(w_ih, b_ih, x, gates * size, inputs, from_x);
    rows(w_hh, b_hh, h, gates * size, size, from_h);
    for (size_t u = 0; u < size; u++) {
        if (lstm) {
            float i = sigmoid(from_x[u] + from_h[u]);
            float f = sigmoid(from_x[size + u] + from_h[size + u]);
            float g = tanhf(from_x[2 * size + u] + from_h[2 * size + u]);
            float o = sigmoid(from_x[3 * size + u] + from_h[3 * size + u]);
            c[u] = f * c[u] + i * g;
            h[u] = o * tanhf(c[u]);
        } else {
            float r = sigmoid(from_x[u] + from_h[u]);
            float gate = sigmoid(from_x[size + u] + from_h[size + u]);
            float n = tanhf(from_x[2 * size + u] + r * from_h[2 * size + u]);
            h[u] = (1.0f - gate) * n + gate * h[u];
        }
    }
}

/* steps x (I) -> y (O) through `layers` layers; the pointers of layer l stand at tables[6 l]: w_ih, w_hh, b_ih,
 * b_hh, h, c. A head (O, H) with bias follows. */
void run(int lstm, size_t layers, size_t inputs, size_t size, size_t outputs, float **tables, const float *w,
         const float *b, const float *xs, float *ys, float *z, size_t steps)
{
    for (size_t t = 0; t < steps; t++) {
        const float *x = xs + t * inputs;
        size_t width = inputs;
        for (size_t l = 0; l < layers; l++) {
            float **p = tables + 6 * l;
            layer(lstm, width, size, p[0], p[1], p[2], p[3], x, p[4], p[5], z);
            x = p[4];
            width = size;
        }
        rows(w, b, x, outputs, size, ys + t * outputs);
    }
}
