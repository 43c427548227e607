"""The self-test as C: recorded inputs and the bits that must come out, in the image.

It has no output of its own: it returns the number of words that differ and tells a callback where. So the
same file runs on a desk computer, under an emulator, and on a board whose only output is a lamp. Recorded
numbers are words of bits, little-endian, as all targets of this export are.
"""

from __future__ import annotations

import numpy as np

from edge_rnn.core.model import Model
from firmware_export.c_text import array, floats32, floats64, rename
from firmware_export.golden import Golden

_HEADER = """\
/* Self-test of ern: are the bits of this build those of the runtime it was exported from? */
#ifndef ERN_SELFTEST_H
#define ERN_SELFTEST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Called for every word that differs: which call (steps first, then detector samples; -1: the compiler
 * fused arithmetic), which word of its answer. */
typedef void (*ern_selftest_report)(void *context, int32_t call, int32_t word);

/* Number of words that differ: 0 is good. report may be 0. */
int32_t ern_selftest(ern_selftest_report report, void *context);

#ifdef __cplusplus
}
#endif

#endif
"""

_CODE = """\
/* Self-test of ern: recorded inputs, and the bits that must come out. */
#include "ern.h"
#include "ern_selftest.h"

#define STEPS {steps}

{arrays}
static int32_t count(int differs, int32_t call, int32_t word, ern_selftest_report report, void *context)
{{
    if (!differs) {{
        return 0;
    }}
    if (report != 0) {{
        report(context, call, word);
    }}
    return 1;
}}

static int32_t check_steps(ern_state *s, ern_selftest_report report, void *context)
{{
    union {{
        float y[ERN_OUTPUTS];
        uint32_t words[ERN_OUTPUTS];
    }} answer;
    int32_t wrong = 0;
    int32_t t;
    int32_t k;

    ern_reset(s);
    for (t = 0; t < STEPS; t++) {{
        if (ern_step(s, step_x[t], answer.y) != ERN_OK) {{
            wrong += count(1, t, -1, report, context);
        }}
        for (k = 0; k < ERN_OUTPUTS; k++) {{
            wrong += count(answer.words[k] != step_y[t][k], t, k, report, context);
        }}
    }}
    return wrong;
}}
{detect}
int32_t ern_selftest(ern_selftest_report report, void *context)
{{
    ern_state s;
    int32_t wrong = count(!ern_arithmetic(), -1, 0, report, context);

    wrong += check_steps(&s, report, context);
{call}    return wrong;
}}
"""

_DETECT = """
static int32_t check_verdicts(ern_state *s, ern_selftest_report report, void *context)
{{
    union {{
        ern_verdict verdict;
        uint64_t words[WORDS];
    }} answer;
    int32_t wrong = 0;
    int32_t t;
    int32_t k;

    ern_reset(s);
    for (k = 0; k < WORDS; k++) {{
        answer.words[k] = 0u;
    }}
    for (t = 0; t < SAMPLES; t++) {{
        if (ern_detect_held(s, times[t], readings[t], present[t], held[t], &answer.verdict) != ERN_OK) {{
            wrong += count(1, STEPS + t, -1, report, context);
        }}
        for (k = 0; k < WORDS; k++) {{
            wrong += count(answer.words[k] != verdicts[t][k], STEPS + t, k, report, context);
        }}
    }}
    return wrong;
}}
"""

MAIN = """\
/* Returns 0 if every bit is right. On a bare core the start-up code hands this to the debugger. */
#include "ern_selftest.h"

int main(void)
{
    return (ern_selftest(0, 0) == 0) ? 0 : 1;
}
"""


def selftest(model: Model, name: str, golden: Golden) -> dict[str, str]:
    """The files `NAME_selftest.h` and `.c` for the recorded answers."""
    words = [f"0x{v:08X}u" for v in golden.ys.view(np.uint32).ravel().tolist()]
    arrays = [
        _table("float", "step_x", "[STEPS][ERN_INPUTS]", floats32(golden.xs), model.input_size),
        _table("uint32_t", "step_y", "[STEPS][ERN_OUTPUTS]", words, model.output_size),
    ]
    detect = call = ""
    if golden.verdicts is not None:
        samples = golden.detect_samples()
        wide = golden.verdicts.dtype.itemsize // 8
        flat = golden.verdicts.view(np.uint64).reshape(len(golden.verdicts), wide)
        arrays = [
            f"#define SAMPLES {len(golden.verdicts)}\n#define WORDS {wide}\n",
            *arrays,
            array("int64_t", "times", [f"INT64_C({v})" for v in golden.times_ns.tolist()], "SAMPLES"),
            array("uint64_t", "present", _words64(samples["present"]), "SAMPLES"),
            array("uint64_t", "held", _words64(samples["held"]), "SAMPLES"),
            _readings(golden.readings, model.input_size),
            _table("uint64_t", "verdicts", "[SAMPLES][WORDS]", _words64(flat), wide),
        ]
        detect = _DETECT.format()
        call = "    wrong += check_verdicts(&s, report, context);\n"
    code = _CODE.format(steps=len(golden.xs), arrays="\n".join(arrays), detect=detect, call=call)
    files = {f"{name}_selftest.h": _HEADER, f"{name}_selftest.c": code}
    return {file: _named(text, name) for file, text in files.items()}


def main_file(name: str) -> str:
    """A program that is nothing but the self-test."""
    return _named(MAIN, name)


def _named(text: str, name: str) -> str:
    text = text.replace('"ern.h"', f'"{name}.h"').replace("of ern:", f"of {name}:")
    return rename(text, name)


def _words64(values: np.ndarray) -> list[str]:
    return [f"UINT64_C(0x{v:016X})" for v in np.ravel(values).tolist()]


def _table(kind: str, name: str, size: str, literals: list[str], columns: int) -> str:
    rows = [", ".join(literals[k : k + columns]) for k in range(0, len(literals), columns)]
    return f"static const {kind} {name}{size} = {{\n" + "".join(f"    {{{row}}},\n" for row in rows) + "};\n"


def _readings(readings: np.ndarray, columns: int) -> str:
    """Readings as numbers; a NaN has no literal in C99, so it is made by the compiler's own arithmetic."""
    literals = ["NOT_A_NUMBER" if np.isnan(v) else floats64([v])[0] for v in readings.ravel()]
    return "#define NOT_A_NUMBER (0.0 / 0.0)\n\n" + _table(
        "double", "readings", "[SAMPLES][ERN_INPUTS]", literals, columns
    )
