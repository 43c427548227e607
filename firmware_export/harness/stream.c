/* Runs an exported model on recorded samples and writes down every word of its answers.
 *
 * Compiled with -DHARNESS_MODEL=pump -DHARNESS_HEADER="pump.h" -DHARNESS_DETECT=0 or 1, with the start-up
 * code of the machine. No word of these is one that the header of a model called "model" could define.
 * Input records: step: float32 x[inputs]. detect: int64 time, uint64 present, uint64 held, float64 x[inputs].
 * Output records: step: int32 result, float32 y[outputs]. detect: int64 result, the verdict.
 * Behind the last record: uint64 counted instructions, uint64 counted samples, uint64 arithmetic as it must be,
 * and the state. */
#include "stream.h"

#include HARNESS_HEADER

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define NAME(part) JOIN(HARNESS_MODEL, part)

#define BLOCK 8

#if HARNESS_DETECT
typedef struct {
    int64_t time_ns;
    uint64_t present;
    uint64_t held;
    double x[N_INPUTS];
} sample_in;

typedef struct {
    int64_t result;
    NAME(_verdict) verdict;
} sample_out;
#else
typedef struct {
    float x[N_INPUTS];
} sample_in;

typedef struct {
    int32_t result;
    float y[N_OUTPUTS];
} sample_out;
#endif

static NAME(_state) state;
static sample_in in[BLOCK];
static sample_out out[BLOCK];

static void one(const sample_in *sample, sample_out *answer)
{
#if HARNESS_DETECT
    if (sample->held == 0u) {
        answer->result = NAME(_detect)(&state, sample->time_ns, sample->x, sample->present, &answer->verdict);
    } else {
        answer->result = NAME(_detect_held)(&state, sample->time_ns, sample->x, sample->present, sample->held,
                                            &answer->verdict);
    }
#else
    answer->result = NAME(_step)(&state, sample->x, answer->y);
#endif
}

int main(void)
{
    uint64_t summary[3] = {0u, 0u, 0u};
    uint32_t size;

    summary[2] = (uint64_t)NAME(_arithmetic)();
    NAME(_init)(&state);
    do {
        uint32_t count;
        uint32_t k;
        uint32_t begun;

        size = stream_read(in, (uint32_t)sizeof(in));
        count = size / (uint32_t)sizeof(in[0]);
        begun = stream_ticks();
        for (k = 0u; k < count; k++) {
            one(&in[k], &out[k]);
        }
        summary[0] += stream_instructions(begun, stream_ticks());
        summary[1] += count;
        stream_write(out, count * (uint32_t)sizeof(out[0]));
    } while (size == (uint32_t)sizeof(in));
    stream_write(summary, (uint32_t)sizeof(summary));
    stream_write(&state, (uint32_t)sizeof(state));
    return 0;
}
