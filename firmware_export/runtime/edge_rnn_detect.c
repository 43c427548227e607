/* ---- detector: float64, every operation rounded on its own, never fused -------------------------- */

#if ERN_HAS_RESIDUAL
/* Residuals in units of their spread are limited to this, so that no product of them overflows. */
#define ERN_RESIDUAL_LIMIT 1e6
/* Below this a distance is no distance: dividing by it could overflow. */
#define ERN_SMALLEST 1e-200
#endif
#define ERN_ALARM_ANOMALY 2u
#define ERN_ALARM_CLEARING 3u

/* One sample on its way through the stages; ERN_INPUTS numbers each. */
typedef struct {
    double level[ERN_INPUTS];     /* the slow level below each channel, before this sample moved it */
    double seen[ERN_INPUTS];      /* what the network sees: scaled, without the level, limited */
#if ERN_HAS_RESIDUAL
    double deviation[ERN_INPUTS]; /* seen minus what the network had said, in units of its spread */
    double best[ERN_INPUTS];      /* the channels' parts of the largest scorer's distance */
#endif
    float x[ERN_INPUTS];
} ern_sample;

static double ern_not_a_number(void)
{
    union {
        uint64_t bits;
        double number;
    } value;

    value.bits = 0x7FF8000000000000u;
    return value.number;
}

static int ern_is_finite(double value)
{
    return (value - value) == 0.0;
}

static double ern_clip(double value, double limit)
{
    double result = value;

    if (value > limit) {
        result = limit;
    } else if (value < -limit) {
        result = -limit;
    } else {
        /* within */
    }
    return result;
}

static int ern_alarm_is_on(const ern_state *s)
{
    return s->phase >= ERN_ALARM_ANOMALY;
}

#if ERN_HAS_COUNTS
/* Counters stop at their largest value; every limit is below it. */
static uint32_t ern_count(uint32_t value)
{
    return (value == UINT32_MAX) ? value : (value + 1u);
}
#endif

/* Back to the resting state and a new warm-up; what the guard has learned stays. */
static void ern_rest(ern_state *s)
{
    int32_t i;
#if ERN_HAS_RESIDUAL
    int32_t k;
#endif

    ern_rest_network(s);
    for (i = 0; i < ERN_INPUTS; i++) {
        s->held[i] = 0.0;
#if ERN_HAS_DRIFT
        s->level[i] = 0.0;
        s->levelled[i] = 0u;
#endif
#if ERN_HAS_MAX_MISSING
        s->bridged[i] = 0u;
#endif
    }
#if ERN_HAS_RESIDUAL
    for (k = 0; k < ERN_SCORERS; k++) {
        for (i = 0; i < ERN_INPUTS; i++) {
#if ERN_HAS_MAX_FREEZE
            s->z[k][i] = s->center[k][i];
#else
            s->z[k][i] = ern_scorers[k].center[i];
#endif
        }
    }
#endif
#if ERN_HAS_LOCAL_MEAN
    s->local_mean = ERN_INITIAL_MEAN;
#endif
    s->spoken = 0u;
    s->phase = 0u;
    s->history = 0u;
    s->clearing_steps = 0u;
    s->refractory = 0u;
#if ERN_HAS_MAX_FREEZE
    s->frozen = 0u;
#endif
    s->warm = ERN_WARMUP;
}

/* Guard: the fault of one channel. A held value is judged by its range, but it is no news. */
static uint8_t ern_judge(ern_state *s, int32_t i, int64_t time_ns, double value, double scaled, int fresh,
                         int held)
{
    const int finite = ern_is_finite(scaled);

#if !ERN_HAS_STATEFUL_GUARD
    (void)s;
#endif
#if !ERN_HAS_SILENT
    (void)time_ns;
#endif
#if !ERN_HAS_CHANNEL_LIMITS
    (void)i;
#endif
#if !ERN_HAS_VALUE_LIMITS
    (void)value;
#endif
    if (fresh != 0) {
#if ERN_HAS_SILENT
        s->heard[i] = time_ns;
#endif
#if ERN_HAS_STUCK
        if (finite != 0) {
            s->run[i] = ((s->run[i] > 0u) && (value == s->last[i])) ? ern_count(s->run[i]) : 1u;
            s->last[i] = value;
        }
#endif
    } else {
#if ERN_HAS_SILENT
        if (ern_elapsed(s->heard[i], time_ns) > ERN_SILENT_AFTER_NS) {
            return ERN_SILENT;
        }
#endif
        if (held == 0) {
            return ERN_MISSING;
        }
    }
    if (finite == 0) {
        return ERN_NON_FINITE;
    }
#if ERN_HAS_RANGE
    if ((value < ern_low[i]) || (value > ern_high[i])) {
        return ERN_RANGE;
    }
#endif
#if ERN_HAS_STUCK
    if ((ern_stuck_after[i] > 0u) && (s->run[i] > ern_stuck_after[i])) {
        return ERN_STUCK;
    }
#endif
    return ERN_NO_FAULT;
}

/* All channels: their faults and how many are healthy, and what the network sees of the others. */
static int32_t ern_guard(ern_state *s, int64_t time_ns, const double *x, uint64_t fresh, uint64_t held,
                         double *scaled, uint8_t *fault)
{
    int32_t healthy = 0;
    int32_t i;
#if ERN_HAS_MAX_MISSING
    int too_long = 0;
#endif

    for (i = 0; i < ERN_INPUTS; i++) {
        const uint64_t bit = (uint64_t)1u << (uint32_t)i;

        scaled[i] = (x[i] - ern_mean[i]) / ern_std[i];
        fault[i] = ern_judge(s, i, time_ns, x[i], scaled[i], (fresh & bit) != 0u, (held & bit) != 0u);
        if (fault[i] == ERN_NO_FAULT) {
            healthy++;
#if ERN_HAS_MAX_MISSING
            if (s->bridged[i] > ERN_MAX_MISSING) {
                too_long = 1;
            }
            s->bridged[i] = 0u;
        } else {
            s->bridged[i] = ern_count(s->bridged[i]);
#endif
        }
    }
#if ERN_HAS_MAX_MISSING
    if (too_long != 0) {
        ern_rest(s);
    }
#endif
    return healthy;
}

static void ern_condition(ern_state *s, const double *scaled, const uint8_t *fault, ern_sample *sample)
{
    int32_t i;
#if ERN_HAS_DRIFT
    const double rate = ern_alarm_is_on(s) ? ERN_DRIFT_RATE_IN_ALARM : ERN_DRIFT_RATE;
#endif

    for (i = 0; i < ERN_INPUTS; i++) {
        double level = 0.0;
        double z;

#if ERN_HAS_DRIFT
        if ((fault[i] == ERN_NO_FAULT) && ern_drifts[i] && !s->levelled[i]) {
            s->levelled[i] = 1u;
            s->level[i] = scaled[i];
        }
        level = s->level[i];
#endif
        if (fault[i] == ERN_NO_FAULT) {
            z = ern_clip(scaled[i] - level, ERN_CLIP);
            s->held[i] = z;
#if ERN_HAS_PREDICT
        } else if (s->spoken) {
            z = ern_clip((double)s->y[i], ERN_CLIP);
#endif
        } else {
            z = s->held[i];
        }
        sample->seen[i] = z;
        sample->x[i] = (float)z;
        sample->level[i] = level;
#if ERN_HAS_DRIFT
        if (ern_drifts[i] && (fault[i] == ERN_NO_FAULT)) {
            const double step = rate * z;

            s->level[i] = level + step;
        }
#endif
    }
}

static int ern_outputs_finite(const ern_state *s)
{
    int finite = 1;
    int32_t k;

    for (k = 0; k < ERN_OUTPUTS; k++) {
        if ((s->y[k] - s->y[k]) != 0.0f) {
            finite = 0;
        }
    }
    return finite;
}

#if ERN_HAS_RESIDUAL
/* The sample against what the network had said about it. */
static void ern_compare(const ern_state *s, const double *x, uint64_t present, ern_sample *sample,
                        ern_verdict *verdict)
{
    int32_t i;

    for (i = 0; i < ERN_INPUTS; i++) {
        const double said = (double)s->y[i];
        const double above = (said + sample->level[i]) * ern_std[i];

        sample->deviation[i] =
            ern_clip((sample->seen[i] - said) / ern_residual_scale[i], ERN_RESIDUAL_LIMIT);
        verdict->expected[i] = above + ern_mean[i];
        if (((present >> (uint32_t)i) & 1u) && ern_is_finite(x[i])) {
            verdict->residual[i] = x[i] - verdict->expected[i];
        }
    }
}

#if ERN_HAS_MEWMA
/* Squared distance of d under an inverse covariance (row-major), and the channels' parts of it. */
static double ern_mewma(const double *d, const double *precision, double *part)
{
    double total = 0.0;
    int32_t i;
    int32_t j;

    for (i = 0; i < ERN_INPUTS; i++) {
        double inner = 0.0;

        for (j = 0; j < ERN_INPUTS; j++) {
            const double term = precision[j] * d[j];

            inner = inner + term;
        }
        precision += ERN_INPUTS;
        part[i] = d[i] * inner;
        total = total + part[i];
    }
    return total;
}
#endif

#if ERN_HAS_EWMA_Z
/* Largest squared z-score of d under inverse variances, and those of all channels. */
static double ern_ewma_z(const double *d, const double *precision, double *part)
{
    double largest = 0.0;
    int32_t i;

    for (i = 0; i < ERN_INPUTS; i++) {
        part[i] = d[i] * d[i] * precision[i];
        largest = (part[i] > largest) ? part[i] : largest;
    }
    return largest;
}
#endif

/* All scorers one step on; the combined score. A faulty channel is fed its center and has d = 0. */
static double ern_score(ern_state *s, const uint8_t *fault, ern_sample *sample)
{
#if ERN_HAS_SUM
    double combined = 0.0;
#endif
    double largest = 0.0;
    int32_t k;
    int32_t i;

    for (k = 0; k < ERN_SCORERS; k++) {
        const ern_scorer *scorer = &ern_scorers[k];
        const double *source = scorer->of_input ? sample->seen : sample->deviation;
#if ERN_HAS_MAX_FREEZE
        const double *center = s->center[k];
#else
        const double *center = scorer->center;
#endif
        double d[ERN_INPUTS];
        double part[ERN_INPUTS];
        double one;

        for (i = 0; i < ERN_INPUTS; i++) {
            const double target = fault[i] ? center[i] : source[i];
            const double step = scorer->rate * (target - s->z[k][i]);

            s->z[k][i] = s->z[k][i] + step;
            d[i] = fault[i] ? 0.0 : (s->z[k][i] - center[i]);
        }
#if ERN_HAS_MEWMA && ERN_HAS_EWMA_Z
        one = scorer->mewma ? ern_mewma(d, scorer->precision, part) : ern_ewma_z(d, scorer->precision, part);
#elif ERN_HAS_MEWMA
        one = ern_mewma(d, scorer->precision, part);
#else
        one = ern_ewma_z(d, scorer->precision, part);
#endif
        one = one / scorer->unit;
        if ((k == 0) || (one > largest)) {
            largest = one;
            for (i = 0; i < ERN_INPUTS; i++) {
                sample->best[i] = part[i];
            }
        }
#if ERN_HAS_SUM
        combined = combined + one;
#endif
    }
#if ERN_HAS_SUM
    return combined;
#else
    return largest;
#endif
}

/* Explanation: the parts of the distance, brought to a sum of one. */
static void ern_explain(const double *part, const uint8_t *fault, double *share)
{
    double total = 0.0;
    int32_t healthy = 0;
    int32_t i;

    for (i = 0; i < ERN_INPUTS; i++) {
        total = total + part[i];
        healthy += fault[i] ? 0 : 1;
    }
    for (i = 0; i < ERN_INPUTS; i++) {
        if (total > ERN_SMALLEST) {
            share[i] = part[i] / total;
        } else {
            share[i] = fault[i] ? 0.0 : (1.0 / (double)healthy);
        }
    }
}
#endif

/* One step of the alarm: debounce, hysteresis, a pause between alarms. */
static void ern_advance(ern_state *s, double score, double threshold)
{
    const uint64_t too_high = (score > threshold) ? UINT64_C(1) : UINT64_C(0);
    uint64_t history = ((s->history << 1) | too_high) & ERN_ALARM_WINDOW_MASK;
    uint32_t hits = 0u;

    s->history = history;
    if (ern_alarm_is_on(s) != 0) {
        if (!(score < (ERN_CLEAR_RATIO * threshold))) {
            s->phase = ERN_ALARM_ANOMALY;
        } else {
            s->clearing_steps = (s->phase == ERN_ALARM_CLEARING) ? (s->clearing_steps + 1u) : 1u;
            s->phase = ERN_ALARM_CLEARING;
            if (s->clearing_steps > ERN_CLEAR_HOLD) {
                s->phase = 0u;
                s->history = 0u;
                s->refractory = ERN_REFRACTORY;
            }
        }
        return;
    }
    while (history != 0u) {
        history &= history - 1u;
        hits++;
    }
    if (s->refractory > 0u) {
        s->refractory--;
    } else if (hits >= ERN_ALARM_NEEDED) {
        s->phase = ERN_ALARM_ANOMALY;
        return;
    } else {
        /* not yet */
    }
    s->phase = (hits > 0u) ? 1u : 0u;
}

/* Score, threshold, alarm and explanation of a sample that can be judged. */
static void ern_assess(ern_state *s, ern_sample *sample, uint32_t warm, ern_verdict *verdict)
{
#if ERN_HAS_RESIDUAL
    const double score = ern_score(s, verdict->fault, sample);
#else
    const double score = (double)s->y[ERN_ALARM_CLASS];
#endif
    double limit = ERN_THRESHOLD;

#if !ERN_HAS_RESIDUAL
    (void)sample;
#endif
    if (warm > 0u) {
        return;
    }
#if ERN_HAS_LOCAL_MEAN
    limit = limit + s->local_mean;
#endif
    verdict->score = score;
    verdict->threshold = limit;
    ern_advance(s, score, limit);
#if ERN_HAS_MAX_FREEZE
    s->frozen = ern_alarm_is_on(s) ? ern_count(s->frozen) : 0u;
#endif
#if ERN_HAS_LOCAL_MEAN
    if (!ern_alarm_is_on(s) && (score <= limit)) {
        const double step = ERN_MEAN_RATE * (score - s->local_mean);

        s->local_mean = s->local_mean + step;
    }
#endif
#if ERN_HAS_RESIDUAL
    ern_explain(sample->best, verdict->fault, verdict->share);
#endif
}

#if ERN_HAS_MAX_FREEZE
/* The present level becomes normal; a channel with drift removal finds its level anew. */
static void ern_accept(ern_state *s)
{
#if ERN_HAS_RESIDUAL
    int32_t k;
    int32_t i;

    for (k = 0; k < ERN_SCORERS; k++) {
        for (i = 0; i < ERN_INPUTS; i++) {
#if ERN_HAS_DRIFT
            if (!ern_drifts[i]) {
                s->center[k][i] = s->z[k][i];
            }
#else
            s->center[k][i] = s->z[k][i];
#endif
        }
    }
#endif
    ern_rest(s);
}
#endif

static void ern_clear_verdict(const ern_state *s, ern_verdict *verdict)
{
    const double nothing = ern_not_a_number();
    int32_t i;

    verdict->time_ns = s->time_ns;
    verdict->step = s->steps;
    verdict->score = nothing;
    verdict->threshold = nothing;
    for (i = 0; i < ERN_INPUTS; i++) {
        verdict->share[i] = nothing;
        verdict->residual[i] = nothing;
        verdict->expected[i] = nothing;
        verdict->fault[i] = ERN_NO_FAULT;
    }
    verdict->status = ERN_WARMING;
    verdict->alarm = 0u;
    verdict->accepted = 0u;
}

int ern_detect_held(ern_state *s, int64_t time_ns, const double x[ERN_INPUTS], uint64_t present_mask,
                    uint64_t held_mask, ern_verdict *verdict)
{
    ern_sample sample;
    double scaled[ERN_INPUTS];
    int32_t healthy;
    int sound;
    uint32_t warm;

    if ((s->steps > 0) && (time_ns <= s->time_ns)) {
        return ERN_ERROR_TIME;
    }
#if ERN_HAS_SILENT
    if (s->steps == 0) {
        int32_t i;

        for (i = 0; i < ERN_INPUTS; i++) {
            s->heard[i] = time_ns;
        }
    }
#endif
#if ERN_HAS_GAP_RESET
    if ((s->steps > 0) && (ern_elapsed(s->time_ns, time_ns) > ERN_GAP_NS)) {
        ern_rest(s);
    }
#endif
    s->steps++;
    s->time_ns = time_ns;
    ern_clear_verdict(s, verdict);

    healthy = ern_guard(s, time_ns, x, present_mask, held_mask, scaled, verdict->fault);
    ern_condition(s, scaled, verdict->fault, &sample);
#if !ERN_HAS_FORECAST
    ern_network(s, sample.x, s->y);
    s->spoken = 1u;
#endif
    sound = s->spoken && ern_outputs_finite(s);
#if ERN_HAS_RESIDUAL
    if (sound != 0) {
        ern_compare(s, x, present_mask | held_mask, &sample, verdict);
    }
#endif
    warm = s->warm;
    if (healthy > 0) {
        if (warm > 0u) {
            s->warm = warm - 1u;
        }
        if (sound != 0) {
            ern_assess(s, &sample, warm, verdict);
        }
    }
    if (healthy < ERN_INPUTS) {
        verdict->status = ERN_FAULT;
    } else if (sound && (warm == 0u)) {
        verdict->status = (uint8_t)(ERN_NORMAL + s->phase);
    } else {
        verdict->status = ERN_WARMING;
    }
    verdict->alarm = ern_alarm_is_on(s) ? 1u : 0u;

#if ERN_HAS_MAX_FREEZE
    if (s->frozen > ERN_MAX_FREEZE) {
        verdict->accepted = 1u;
        ern_accept(s);
#if ERN_HAS_FORECAST
    } else {
        ern_network(s, sample.x, s->y);
        s->spoken = 1u;
#endif
    }
#elif ERN_HAS_FORECAST
    ern_network(s, sample.x, s->y);
    s->spoken = 1u;
#endif
    /* A network without bounded units can leave the numbers; it must not stay there for ever. */
    if (!ern_outputs_finite(s)) {
        ern_rest(s);
    }
    return ERN_OK;
}

int ern_detect(ern_state *s, int64_t time_ns, const double x[ERN_INPUTS], uint64_t present_mask,
               ern_verdict *verdict)
{
    return ern_detect_held(s, time_ns, x, present_mask, 0u, verdict);
}
