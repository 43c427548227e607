"""The compiled functions of this room, as `edge_rnn.core.entries` has those of the network."""

from edge_rnn.core.entries import Entry

STEP_ROWS = Entry("step_rows", "edge_rnn.detect.loop", "step_rows", 2, "float64")
# The same for a detector that asks for more than the default flow has (`Plan.general`).
STEP_ROWS_OF_ANY = Entry("step_rows_of_any", "edge_rnn.detect.loop", "step_rows_of_any", 2, "float64")
ENTRIES = (STEP_ROWS, STEP_ROWS_OF_ANY)

# What `step_rows` answers in place of a score where a sample was not taken.
REFUSED = float("-inf")
