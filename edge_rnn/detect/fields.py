"""Names for the offsets in a detector's constants and in one stream's state.

The names are in snapshots as numbers: append, never renumber. What they lead to is drawn in plan.py.
"""

# Vectors of C numbers at the start of the arena; a scorer's block starts with SCORER_HEAD numbers.
MEAN, STD, LOW, HIGH, SCALE, DRIFT, STUCK_AFTER, SCORERS = range(8)
SCORER_KIND, SCORER_SOURCE, SCORER_RATE, SCORER_UNIT, SCORER_HEAD = range(5)
# Offsets in `detect`, then the number of vectors of C before the scorers'.
LOCAL_MEAN, VALUE, EXCESS_SUM, EXCESS_SQUARES, WINDOW_SUM, DETECT_HEAD = range(6)
HELD_AT, LAST_AT, LEVEL_AT, SCORERS_AT = range(4)
# Offsets in `marks`, then the vectors of C behind them.
STEPS, TIME, WARM, SPOKEN, PHASE, HISTORY, CLEARING_STEPS, REFRACTORY, FROZEN = range(9)
RING_AT, RING_FILL, COUNT, EXCESSES, MARKS_HEAD = range(9, 14)
RUN_AT, HEARD_AT, BRIDGED_AT, LEVELLED_AT, CHANNEL_MARKS = range(5)

# Numbers of the words in a `DetectorSpec`.
FORECAST, RECONSTRUCT, CLASSIFY = range(3)
KINDS = ("forecast", "reconstruct", "classify")
MEWMA, EWMA_Z = range(2)
SCORER_KINDS = ("mewma", "ewma_z")
RESIDUAL, INPUT = range(2)
SOURCES = ("residual", "input")
FIXED, QUANTILE, DSPOT_EWMA, DSPOT = range(4)
THRESHOLD_KINDS = ("fixed", "quantile", "dspot_ewma", "dspot")

# Words of the table that the compiled loop is given (loop.py), mostly addresses.
(
    PLAN_WORD, VECTORS_WORD, FRESH_WORD, NETWORK_WORD, WEIGHTS_WORD, SCRATCH_WORD, X_WORD, WORK_WORD,
    STATES_WORD, CAPACITY_WORD, ROWS_WORD, TIMES_WORD, XS_WORD, PRESENT_WORD, OUT_WORD, OUT_SIZE_WORD,
    COUNT_WORD, WORDS,
) = range(18)  # fmt: skip
# Vectors of C float64 lent to it as scratch.
SCALED, SEEN, DEVIATION, D, PART, BEST, WORK_VECTORS = range(7)
