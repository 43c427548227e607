"""The text of a group's score messages, cut where its numbers stand; see `words.py` for the order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import numpy as np

from edge_rnn.detect.verdict import STATUSES

_LONGEST_NUMBER: Final = 24
_TIMES: Final = 64


class Pieces:
    """See the module.

    Args:
        names: the channels, each as a JSON string.
        scorers: the scorers, each as a JSON string.

    Attributes:
        texts: all pieces, joined; ends: i8 (count + 1,), where each ends, behind a 0; count.
        scorers: how many scorers have a name.
        most: bytes of the longest message without its packet's head.
    """

    def __init__(self, names: Sequence[str], scorers: Sequence[str]) -> None:
        found = [
            f',"status":"{status}","alarm":{alarm},"n":' for status in STATUSES for alarm in ("false", "true")
        ]
        found += ['{"time":"', '","time_ns":', ',"score":', ',"threshold":']
        found += _vector(',"shares":{', names)
        found += _vector('},"expected":{', names)
        found.append('},"probability":')
        found += _vector(',"bands":{', names)
        found += [f'}},"scorer":{name},"severity":' for name in (*scorers, '""')]
        raw = [piece.encode() for piece in found]
        self.texts = np.frombuffer(b"".join(raw), np.uint8)
        self.ends = np.array([0, *accumulate(map(len, raw))], np.int64)
        self.count = len(raw)
        self.scorers = len(scorers)
        self.most = len(self.texts) + _LONGEST_NUMBER * (5 + 3 * len(names)) + _TIMES


def _vector(begin: str, names: Sequence[str]) -> list[str]:
    return [f"{begin if not i else ','}{name}:" for i, name in enumerate(names)]
