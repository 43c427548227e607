/* The step of a recurrent model in C99: the same sums in the same order as the Python runtime, so
 * the same bits.
 *
 * Nothing here allocates, prints, calls libm or keeps a global: constants, state and scratch belong to
 * the caller. Weights are in the runtime's packed order for one lane; vectors that a dense layer reads
 * or writes are padded with +0 to a multiple of ERN_PAD.
 *
 * ERN_FUSED 1: class F, ern_fma rounds once (needs a fused multiply-add instruction, else the compiler
 *              calls its support library: the same bits, slowly).
 * ERN_FUSED 0: class U, ern_fma rounds the product and the sum.
 * Compile with -ffp-contract=off, so that the choice is never the compiler's.
 */
#ifndef EDGE_RNN_STEP_H
#define EDGE_RNN_STEP_H

#include <stdint.h>

#ifndef ERN_FUSED
#error "define ERN_FUSED as 1 (class F) or 0 (class U)"
#endif

#define ERN_PAD 16

typedef enum { ERN_NONE, ERN_RELU, ERN_TANH, ERN_SIGMOID, ERN_SOFTMAX } ern_activation;

/* One step of a layer of n_h units on x[n_x]: h[n_h] (and c) are replaced by their new values.
 * n_r is the size of the recurrent input (n_h, or the projection's outputs), old[n_r] its value before
 * this step, which must not overlap new_h[n_h]. relu: 0 for tanh. */
void ern_rnn(const float *w, const float *x, int32_t n_x, const float *old, int32_t n_h, float *new_h,
             int32_t relu);
void ern_lstm(const float *w, const float *x, int32_t n_x, const float *old, int32_t n_r, float *c,
              float *new_h, int32_t n_h);
void ern_gru(const float *w, const float *x, int32_t n_x, const float *old, int32_t n_h, float *new_h);

/* y[n_y] = W x + b, each sum as 16 partial sums and a fixed tree. x is padded; so are w's bias and rows.
 * The padding of y is set to +0. */
void ern_dense(const float *w, const float *x, int32_t n_x, int32_t n_y, float *y);

/* y[n_y] = activation(y); the padding of y is +0 again afterwards. */
void ern_activate(ern_activation kind, float *y, int32_t n_y);

#endif
