"""The compiled functions of this room, as `edge_rnn.core.entries` has those of the network."""

from edge_rnn.core.entries import Entry

STEP_ROWS = Entry("step_rows", "edge_rnn.detect.loop", "step_rows", 2, "float64")
ENTRIES = (STEP_ROWS,)

# What `step_rows` answers in place of a score where a sample was not taken.
REFUSED = float("-inf")
