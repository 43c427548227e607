"""Opening a recording, packed (`.gz`) or not."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO, TextIO

__all__ = ["binary", "lines"]


def binary(file: Path) -> BinaryIO | gzip.GzipFile:
    """The unpacked bytes of a file."""
    if file.suffix.lower() == ".gz":
        return gzip.GzipFile(file)
    return file.open("rb")


def lines(file: Path) -> TextIO:
    """Its text; line ends are left as they are."""
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return file.open(encoding="utf-8-sig", newline="")
