"""What an examination gives: findings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnosis: what was looked at, how it is, what to change, and the figures."""

    subject: str
    level: Verdict
    text: str
    remedy: str = ""
    figures: dict[str, float | int | str | None] = field(default_factory=dict)
