"""The header: what a C program includes, with the state, the verdict, and what each call promises."""

from __future__ import annotations

from collections.abc import Sequence

from edge_rnn import __version__
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.integers import Quantized
from edge_rnn.core.model import Model
from edge_rnn.detect.verdict import GUARD_KINDS, STATUSES, verdict_dtype
from firmware_export.state import Field


def header_text(
    model: Model,
    members: Sequence[Field],
    notes: str,
    state_bytes: int,
    quantized: Quantized | None,
    *,
    initial: bool,
) -> str:
    """The header of `model` with its state's `members`; `notes` are lines of its comment."""
    c, o, spec = model.input_size, model.output_size, model.detector
    channels = "\n".join(
        f" *   {k}  {_plain(i.name)}{f' [{_plain(i.unit)}]' if i.unit else ''}"
        for k, i in enumerate(model.inputs)
    )
    cells = ", ".join(f"{r.cell} {r.input_size}->{r.output_size}" for r in model.layers)
    head = "".join(f", linear {h.input_size}->{h.output_size} {h.activation}" for h in model.head)
    start = "the state it was exported with" if initial else "the resting state, nothing seen"
    integers = "" if quantized is None else f", in integers (w8a16) {quantized.digest[:16]}"
    late = "#define ERN_ERROR_TIME (-2)  /* not later than the last sample; nothing was changed */"
    text = f"""\
/* {_plain(model.name)}: {cells}{head}
 * Made by edge-rnn {__version__}; weights {weights_digest(model)[:16]}{integers}. Do not edit.
 *
 * Inputs, in this order:
{channels}
{notes} */
#ifndef ERN_H
#define ERN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define ERN_INPUTS {c}
#define ERN_OUTPUTS {o}
#define ERN_STATE_BYTES {state_bytes}u

/* What a call returns. */
#define ERN_OK 0
#define ERN_ERROR_INPUT (-1) /* an input is not finite; nothing was changed */
{late if spec else ""}

/* One stream: the caller's, wherever it likes; plain bytes, valid after ern_init. */
typedef struct {{
{chr(10).join(f.declaration() for f in members)}
}} ern_state;

/* Begin: {start}. */
void ern_init(ern_state *s);

/* Forget everything: back to the resting state, nothing seen. */
void ern_reset(ern_state *s);

/* One step of the network in model space: x[ERN_INPUTS] scaled, y[ERN_OUTPUTS]. */
int ern_step(ern_state *s, const float x[ERN_INPUTS], float y[ERN_OUTPUTS]);

/* 1 if this build computes as the model needs it, 0 if the compiler fused what it must not. */
int ern_arithmetic(void);
"""
    if spec is not None:
        text += _detector_header(c, spec.guard.silent_after_ns > 0, spec.kind)
    return text.replace("*/\n\n\n", "*/\n\n") + "\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n"


def _detector_header(channels: int, silent: bool, kind: str) -> str:
    size = verdict_dtype(channels).itemsize
    spare = size - (35 + 25 * channels)
    filler = (
        f"    uint8_t filler[{spare}];           /* to the same size under every ABI */\n" if spare else ""
    )
    statuses = "\n".join(f"#define ERN_{w.upper()} {k}u" for k, w in enumerate(STATUSES))
    faults = "\n".join(
        f"#define ERN_{'NO_FAULT' if w == 'none' else w.upper().replace('-', '_')} {k}u"
        for k, w in enumerate(GUARD_KINDS)
    )
    said = "what the network had expected" if kind == "forecast" else "what the network makes of it"
    text = f"""
/* Status of a verdict. */
{statuses}

/* Fault of a channel. */
{faults}

#define ERN_VERDICT_BYTES {size}u

/* The answer to one sample; numbers that do not exist are NaN. */
typedef struct {{
    int64_t time_ns;
    int64_t step;                /* count of samples, from 1 */
    double score;                /* too high where score > threshold */
    double threshold;
    double share[ERN_INPUTS];    /* each channel's part of the score, sums to 1 */
    double residual[ERN_INPUTS]; /* reading minus expected, in the reading's unit */
    double expected[ERN_INPUTS]; /* {said}, in the reading's unit */
    uint8_t fault[ERN_INPUTS];
    uint8_t status;
    uint8_t alarm;               /* 1: on */
    uint8_t accepted;            /* 1: a lasting new level was taken as normal */
{filler}}} ern_verdict;

/* One sample of raw readings x[ERN_INPUTS], NaN allowed, at a time in nanoseconds that rises from call to
 * call. Bit i of present_mask: channel i has a new reading in x[i]. */
int ern_detect(ern_state *s, int64_t time_ns, const double x[ERN_INPUTS], uint64_t present_mask,
               ern_verdict *verdict);

/* The same where x[i] may also be an old reading held (bit i of held_mask): judged, but no news. */
int ern_detect_held(ern_state *s, int64_t time_ns, const double x[ERN_INPUTS], uint64_t present_mask,
                    uint64_t held_mask, ern_verdict *verdict);
"""
    if silent:
        text += """
/* 1 if the whole stream counts as silent at now_ns; ask from a timer, no sample will tell. */
int ern_silent(const ern_state *s, int64_t now_ns);
"""
    return text


def _plain(text: str) -> str:
    """Text that cannot end a comment nor leave its line."""
    kept = "".join(ch if ch.isprintable() else "?" for ch in text)
    return kept.replace("\\", "|").replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")
