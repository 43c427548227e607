"""The functions of the code that bring the state to its beginnings, and their constants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from firmware_export.c_text import array, float32, float64, integer
from firmware_export.state import Field

# Kinds of which only the network has numbers.
_NETWORK_KINDS = ("float", "int16_t", "int32_t")


def resets(members: Sequence[Field], rest: np.ndarray, initial: np.ndarray | None, *, detector: bool) -> str:
    """Constants and functions that bring the state to its beginnings."""
    network = [f for f in members if f.kind in _NETWORK_KINDS]
    text = ""

    def value(field: Field, record: np.ndarray) -> np.ndarray:
        return np.ravel(record[field.name][0])

    def assign(field: Field, record: np.ndarray, prefix: str) -> tuple[str, list[str]]:
        """A constant array where the numbers are not all the same, and the lines that set the field."""
        numbers = value(field, record)
        literal = {"float": float32, "double": float64}.get(field.kind, lambda v: integer(field.kind, int(v)))
        index = f"s->{field.name}"
        if not field.shape:
            return "", [f"    {index} = {literal(numbers[0])};"]
        if len(field.shape) == 2:
            index += "[0]"
        same = len({v.tobytes() for v in numbers}) == 1
        constant = (
            "" if same else array(field.kind, f"ern_{prefix}_{field.name}", [literal(v) for v in numbers])
        )
        right = literal(numbers[0]) if same else f"ern_{prefix}_{field.name}[k]"
        if len(field.shape) == 2:
            rows, columns = field.shape
            place = f"s->{field.name}[k / {columns}][k % {columns}]"
            return constant, [
                f"    for (k = 0; k < {rows * columns}; k++) {{",
                f"        {place} = {right};",
                "    }",
            ]
        count = field.shape[0]
        return constant, [f"    for (k = 0; k < {count}; k++) {{", f"        {index}[k] = {right};", "    }"]

    def function(head: str, chosen: Sequence[Field], record: np.ndarray, prefix: str) -> str:
        pairs = [assign(f, record, prefix) for f in chosen]
        body = "\n".join(line for _, lines in pairs for line in lines)
        counter = "    int32_t k;\n\n" if "(k = 0" in body else ""
        return "".join(constant for constant, _ in pairs) + f"{head}\n{{\n{counter}{body}\n}}\n"

    rest_head = "static void ern_rest_network(ern_state *s)" if detector else "void ern_reset(ern_state *s)"
    text += function(rest_head, network, rest, "rest")
    others = [f for f in members if f.kind not in _NETWORK_KINDS]
    if detector:
        head = "void ern_reset(ern_state *s)"
        text += "\n" + function(head, others, rest, "fresh").replace(
            "\n}\n", "\n    ern_rest_network(s);\n}\n"
        )
    if initial is None:
        text += "\nvoid ern_init(ern_state *s)\n{\n    ern_reset(s);\n}\n"
    else:
        text += "\n" + function("void ern_init(ern_state *s)", members, initial, "initial")
    return text
