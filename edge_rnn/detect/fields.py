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
MEWMA, EWMA_Z, MEWMA_DIAGONAL, RUNNING_Z, LIKELIHOOD, CUSUM, PAGE_HINKLEY, NOVELTY, LEVEL, MAGNITUDE = range(
    10
)
SCORER_KINDS = (
    "mewma", "ewma_z", "mewma_diagonal", "running_z", "likelihood", "cusum", "page_hinkley", "novelty",
    "level", "magnitude",
)  # fmt: skip
RESIDUAL, INPUT, NLL, DIFFERENCE, SELF_SCALED, READING = range(6)
SOURCES = ("residual", "input", "nll", "difference", "self_scaled", "reading")
FIXED, QUANTILE, DSPOT_EWMA, DSPOT, CONFORMAL, POT, SPOT = range(7)
THRESHOLD_KINDS = ("fixed", "quantile", "dspot_ewma", "dspot", "conformal", "pot", "spot")
BOTH, UP, DOWN = range(3)
SIDE_WORDS = ("both", "up", "down")
NO_TAIL, STREAM, TABLE = range(3)

# The general detector (general.py). Constants of a scorer, in the arena from `scorers_at` on, MORE each:
# where its state is in `detect`, its weights and its tail's table in the arena, and numbers of its spec.
(
    MORE_KIND, MORE_SOURCE, MORE_HORIZON, MORE_SIDE, MORE_RATE, MORE_UNIT, MORE_WEIGHT, MORE_MEMORY,
    MORE_SLACK, MORE_BOUND, MORE_CAP, MORE_MARGIN, MORE_ALWAYS, MORE_TAIL, MORE_TAIL_ALWAYS, MORE_LOW,
    MORE_BINS, MORE_STATE_AT, MORE_WEIGHTS_AT, MORE_WEIGHTS, MORE_TABLE_AT, MORE_POINTS,
    MORE_GROUP, MORE_BITS, MORE,
) = range(25)  # fmt: skip
# Its state in `detect`: count, then C numbers A, C numbers B, then the tail's counts.
COUNT_AT, CHART_AT = range(2)
# A forecast: steps ahead, where its ring is in `detect`.
STEPS_AHEAD, FORECAST_RING_AT, HORIZON = range(3)
# A feature: its kind (0: difference, else number in TIME_FEATURES + 1) and its channel.
FEATURE_KIND, FEATURE_CHANNEL, FEATURE = range(3)
# Offsets in `detect` from `more_at`: then C numbers each of the values before, running mean, variance, count.
PEAK, DETECT_MORE = range(2)
BEFORE_AT, RUNNING_MEAN_AT, RUNNING_VARIANCE_AT, RUNNING_COUNT_AT, DETECT_MORE_VECTORS = range(5)
# Offsets in `marks` from `marks_more_at`.
(
    AGE, HAS_BEFORE, PEAK_AGE, TOO_HIGH, HIGH_SINCE, BELOW_SINCE, CLOSED, CLOSED_AT, SEVERITY, MARKS_MORE,
) = range(10)  # fmt: skip
# Behind them, with recovery: the scorer that opened the alarm, steps since, steps of a new center to come.
OPENER, OPEN_STEPS, REBASE_LEFT, RECOVERY_MARKS = MARKS_MORE, MARKS_MORE + 1, MARKS_MORE + 2, 3
# Vectors of C from `trend_at` on in `detect`, with a trend.
SLOPE_AT, TREND_COUNT_AT, TREND_VECTORS = range(3)

# Words of the table that the compiled loop is given (loop.py), mostly addresses.
(
    PLAN_WORD, VECTORS_WORD, FRESH_WORD, NETWORK_WORD, WEIGHTS_WORD, SCRATCH_WORD, X_WORD, WORK_WORD,
    STATES_WORD, CAPACITY_WORD, ROWS_WORD, TIMES_WORD, XS_WORD, PRESENT_WORD, OUT_WORD, OUT_SIZE_WORD,
    COUNT_WORD, WORDS,
) = range(18)  # fmt: skip
# Vectors of C float64 lent to it as scratch.
SCALED, SEEN, DEVIATION, D, PART, BEST, WORK_VECTORS = range(7)
# The general detector's go on with these; then residuals, likelihoods and sizes of all horizons (FROM_HORIZON
# vectors each), bins of the tails, scores.
SPREAD, CHANGE, RAW, GENERAL_VECTORS = range(6, 10)
FROM_HORIZON = 3
