"""From a model to the two files of C: the header with the state, and the code with the weights.

The arithmetic is in the templates of `runtime`. What depends on the model is written by `network_source`
(weights, the order in which layers are called), `detector_source` (constants, chosen parts), `state_source`
(the beginnings of the state) and `header_source`; here it becomes two files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_rnn.core.integers import Quantized
from edge_rnn.core.model import Model
from edge_rnn.detect.verdict import verdict_dtype
from firmware_export.c_text import rename, select, template
from firmware_export.detector_source import DetectorText
from firmware_export.header_source import header_text
from firmware_export.integer_source import Packing, integer_network
from firmware_export.network_source import float_part, integer_part
from firmware_export.state import fields, resting, state_dtype
from firmware_export.state_source import resets


@dataclass(frozen=True, slots=True)
class Source:
    """The two files, and what they hold.

    header, code: text; weight_bytes, table_bytes: constants of the network and of the detector;
    state_bytes, verdict_bytes: sizes of the structs (verdict 0 without a detector).
    """

    header: str
    code: str
    weight_bytes: int
    table_bytes: int
    state_bytes: int
    verdict_bytes: int


def generate(
    model: Model,
    name: str,
    fused: bool,
    initial: bytes | None = None,
    notes: str = "",
    *,
    quantized: Quantized | None = None,
    packing: Packing = "plain",
) -> Source:
    """The files of `model` under the C name `name`.

    Args:
        fused: class F.
        initial: a device's state (`state.to_device`) that `..._init` starts from; None: the resting state.
        notes: lines for the header's comment, such as the budget.
        quantized: the model in integers (w8a16), its weights in the order of `packing`.
    """
    detector = DetectorText.of(model)
    if quantized is None:
        network = float_part(model, fused)
    else:
        network = integer_part(model, integer_network(quantized, packing))
        fused = False
    features = {**network.features, **detector.features}
    members = fields(model, quantized)
    device = state_dtype(model, quantized)
    verdict_bytes = verdict_dtype(model.input_size).itemsize if model.detector else 0
    record = resting(model, quantized)
    first = record if initial is None else np.frombuffer(initial, device)
    parts = [
        _preamble(name, fused, detector=model.detector is not None, integers=quantized is not None),
        network.arithmetic,
        f"/* ---- the model {'-' * 83} */\n" if quantized is None else "",
        network.constants,
        detector.constants,
        resets(members, record, first if initial is not None else None, detector=model.detector is not None),
        network.step,
        select(template("edge_rnn_detect.c"), features) if model.detector else "",
        _interface(model),
    ]
    header = header_text(model, members, notes, device.itemsize, quantized, initial=initial is not None)
    code = "\n".join(part for part in parts if part)
    return Source(
        rename(header, name), rename(code, name), network.weight_bytes,
        network.table_bytes + detector.table_bytes, device.itemsize, verdict_bytes,
    )  # fmt: skip


def _preamble(name: str, fused: bool, *, detector: bool, integers: bool) -> str:
    verdict = "typedef char ern_size_of_verdict[(sizeof(ern_verdict) == ERN_VERDICT_BYTES) ? 1 : -1];\n"
    verdict = verdict if detector else ""
    fma = """
#if !defined(__FP_FAST_FMAF) && !defined(__FMA__) && !defined(__ARM_FEATURE_FMA) && \\
    !defined(__aarch64__) && !defined(__riscv_flen)
#error "made for a core with fused multiply-add: choose its compiler flags, or export for another target"
#endif
""" if fused else ""  # fmt: skip
    numeric = "Numeric class " + (
        "F: a multiply-add is rounded once" if fused else "U: a product and a sum are rounded each"
    )
    numeric = "Format w8a16: int8 weights, int16 activations" if integers else numeric
    return f"""\
/* {name}: the code and the weights; see {name}.h.
 *
 * {numeric}. Nothing here allocates, prints, calls
 * libm or keeps anything that changes: all of it is in the caller's {name}_state. */

#include "{name}.h"

#include <float.h>

/* Equal bits need IEEE arithmetic as it is written. */
#if defined(__FAST_MATH__)
#error "compile without -ffast-math"
#endif
#if defined(FLT_EVAL_METHOD) && (FLT_EVAL_METHOD != 0)
#error "float and double must be computed in their own precision; on 32-bit x86: -msse2 -mfpmath=sse"
#endif
{fma}
/* The compiler must not fuse a product and a sum by itself; -ffp-contract=off says so for the whole
 * program, this says so for this file, and ern_arithmetic checks it when it runs. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
/* Short copies stay loops, so that no C library is needed. */
#pragma GCC optimize("no-tree-loop-distribute-patterns")
/* Moving loads far ahead costs more registers than there are, and so stack. */
#pragma GCC optimize("no-schedule-insns")
#endif

typedef char ern_size_of_float[((sizeof(float) == 4u) && (FLT_MANT_DIG == 24)) ? 1 : -1];
typedef char ern_size_of_double[((sizeof(double) == 8u) && (DBL_MANT_DIG == 53)) ? 1 : -1];
typedef char ern_size_of_state[(sizeof(ern_state) == ERN_STATE_BYTES) ? 1 : -1];
{verdict}"""


_ARITHMETIC = {
    False: """\
int ern_arithmetic(void)
{
    /* (1 + e)^2 - (1 + 2e) is 0 where the product is rounded first, e^2 where it is not. */
    const volatile float one_and = 0x1.0008p+0f;
    const volatile float minus = -0x1.001p+0f;
    const float a = one_and;
    const float b = minus;

    return (((a * a) + b) == 0.0f) ? 1 : 0;
}
""",
    True: """\
int ern_arithmetic(void)
{
    /* (1 + e)^2 - (1 + 2e) is 0 where the product is rounded first, e^2 where it is not. */
    const volatile float one_and = 0x1.0008p+0f;
    const volatile float minus = -0x1.001p+0f;
    const volatile double wide_one_and = 0x1.0000001p+0;
    const volatile double wide_minus = -0x1.0000002p+0;
    const float a = one_and;
    const float b = minus;
    const double c = wide_one_and;
    const double d = wide_minus;

    return ((((a * a) + b) == 0.0f) && (((c * c) + d) == 0.0)) ? 1 : 0;
}
""",
}


def _interface(model: Model) -> str:
    """The functions of the header that the templates do not hold."""
    to_state = model.detector is not None
    call = "    ern_network(s, x, s->y);\n    ern_copy(s->y, y, ERN_OUTPUTS);\n" if to_state else (
        "    ern_network(s, x, y);\n"
    )  # fmt: skip
    text = f"""\
int ern_step(ern_state *s, const float x[ERN_INPUTS], float y[ERN_OUTPUTS])
{{
    int32_t k;

    for (k = 0; k < ERN_INPUTS; k++) {{
        if ((x[k] - x[k]) != 0.0f) {{
            return ERN_ERROR_INPUT;
        }}
    }}
{call}    return ERN_OK;
}}

{_ARITHMETIC[to_state]}"""
    if model.detector is not None and model.detector.guard.silent_after_ns > 0:
        text += """
int ern_silent(const ern_state *s, int64_t now_ns)
{
    return (s->steps > 0) && (now_ns > s->time_ns) && (ern_elapsed(s->time_ns, now_ns) > ERN_SILENT_AFTER_NS);
}
"""
    return text
