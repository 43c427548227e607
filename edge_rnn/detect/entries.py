"""The compiled functions of this room, as `edge_rnn.core.entries` has those of the network."""

from edge_rnn.core.entries import Entry

STEP_ROWS = Entry("step_rows", "edge_rnn.detect.loop", "step_rows", 1)
ENTRIES = (STEP_ROWS,)
