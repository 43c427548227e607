"""Places in the tables of int64 that compiled code and its callers share; numbers, nothing else."""

from __future__ import annotations

from typing import Final

NEVER: Final = -(2**63)

# What `scores.write` is given: how many records, their addresses and size; per record the engine's row, and
# per row the place among the streams' outputs (-1: not known); the prepared texts and where each ends (behind
# a leading 0); where packets go and how far they are written; the text of a second and which one it is.
(
    COUNT, RECORDS, ITEM, CHANNELS, ROWS, WAYS, WAY_COUNT, STREAMS, EVERY, TEXTS, ENDS, PIECES, MOST, SCORERS,
    FIRST, OUT, OUT_SIZE, OUT_AT, WRITTEN, ROOM, SECOND, SECONDS, WORDS,
) = range(23)  # fmt: skip

# A stream's outputs, 64 bytes: status and alarm as one number (2 * status + alarm; -1: none, or faulty),
# event time of the last score (NEVER: none) and of the last verdict, address and size of the packet's head,
# the last verdict's status (-1: there was none); then, as float64, its score and threshold.
CODE, SCORED, TIME, HEAD, HEAD_SIZE, STATUS, SCORE, THRESHOLD, STREAM_WORDS = range(9)

# Prepared texts: one for each code, then in the order of the message.
CODES, FIRST_PIECE = 0, 12
