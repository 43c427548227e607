"""Places in the table of int64 that `columns.py` gives to the compiled `columns_loop.py`.

Messages: their count, where their rows are and how wide these are; the row of each lane's stream (-1: not
known) and how many lanes; limits of time. The assembler's records. The batch they go to, how much room it has
and how full it is. What is counted: uses, and messages late or too far ahead. Then the verdicts and the rows
they are of, the events' marks in their records, and a byte a verdict for what is to be followed. Last,
whether clocks are watched: a message beyond the limits of time is the caller's then.
"""

(
    COUNT, CHANNELS, NOW, BLOCK, WIDTH, LANE_ROWS, LANE_COUNT, OLDEST, LATEST, RECORDS, RECORD_SIZE,
    HAS_START, ROOM, OUT_ROWS, OUT_TIMES, OUT_XS, OUT_PRESENT, SIZE, USES, LATE, AHEAD, VERDICTS,
    VERDICT_SIZE, EVENT_MARKS, EVENT_SIZE, MARKED, KEPT_ROWS, WATCHED, WORDS,
) = range(29)  # fmt: skip
# Places in a message's row of 8-byte words; values are float64.
LANE, TIME, VALUES = range(3)
