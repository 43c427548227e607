"""Names of the places in the tables the kernels read: the plan and the arguments of `drive`.

**Plan** (int32): a header, then one record per layer, then one per Linear. Offsets into weights, state
and scratch count float32 numbers; the plan depends on the vector width as the weights do.

**Arguments of `drive`** (int64): addresses, and a few numbers.
"""

from edge_rnn.core.model import ACTIVATIONS, CELLS

# The plan's header: how many layers and Linears, sizes, y in the state row, and the areas of the scratch:
# old h of a layer, two work areas for the head's inner outputs, an input rounded to float32.
LAYERS, LINEARS, INPUTS, OUTPUTS, Y, OLD, WORK_A, WORK_B, X, HEADER = range(10)
# Record of a layer: kind, input rows, hidden units, size of h, blocks, weights, state, w_hr (-1: none).
CELL, ROWS, HIDDEN, UNITS_OUT, BLOCKS, WEIGHTS, H, C, PROJECTION, LAYER = range(10)
# Record of a Linear: padded inputs, outputs, activation, weights.
ROWS16, COLUMNS, ACTIVATION, DENSE, LINEAR = range(5)

RNN_TANH, RNN_RELU, LSTM, GRU = (CELLS.index(c) for c in ("rnn_tanh", "rnn_relu", "lstm", "gru"))
NONE, RELU, TANH, SIGMOID, SOFTMAX = (
    ACTIVATIONS.index(a) for a in ("none", "relu", "tanh", "sigmoid", "softmax")
)

# Arguments of `drive`: addresses of plan, weights, states, row numbers (0: always row 0), scratch, xs (0: the
# array given beside the table), ys, counters of steps per row (0: not counted); bytes of a state row, whether
# xs is float64, number of steps; of an array beside the table: what its type, its dtype (one of two; of row
# numbers: a third) and its number of dimensions must be.
# Of `many` alone: how many rows there are; from how many ready ones on a tile is used; a number per row and
# the last one given out, to tell the rows already in a tile. Of tiles: plan and weights of `pack(model, 1)`,
# a plan of the head alone and where in a row its input is, room for the addresses of a tile's rows, a row
# that is nobody's, scratch, and the size of its areas.
(
    PLAN_AT, WEIGHTS_AT, STATES_AT, ROW_BYTES, ROW_LIST, SCRATCH_AT, XS_AT, WIDE, YS_AT, STEPS_AT, COUNT,
    ARRAY_TYPE, ARRAY_FLOAT32, ARRAY_FLOAT64, ARRAY_DIMENSIONS, ARRAY_INT64,
    CAPACITY, FEWEST, STAMPS_AT, STAMP,
    TILE_PLAN_AT, TILE_WEIGHTS_AT, TILE_HEAD_AT, TILE_TOP, TILE_ROWS, TILE_SPARE, TILE_SCRATCH, TILE_AREA,
    WORDS,
) = range(29)  # fmt: skip
