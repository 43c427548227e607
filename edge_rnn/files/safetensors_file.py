"""Safetensors bytes to tensors and back, with a strict check before any other parser sees them.

The format: 8 bytes little-endian header length n, n bytes of JSON, data. The JSON maps a tensor's name to
`{"dtype", "shape", "data_offsets": [begin, end]}`, offsets counted from the data's first byte, and
`"__metadata__"` to a text-to-text map.

The `safetensors` package writes. It would read, too, but it accepts a name given twice (the last one wins),
blanks before the header, any number of tensors (300,000 empty ones cost it 315 MB) and NaN. So `check`
demands: header at most 1 MB and at most 4,096 tensors; first byte `{`; no key twice at any depth; a data type
of the list below; shape x item size = length; the tensors follow each other from offset 0 to the file's end
without gap or overlap. What is left to read after that is a slice a tensor, so a daemon, which writes no
model, does without the package and its megabyte. Whatever `check` accepts, the package reads in the same way
(a differential test holds that).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from edge_rnn.errors import ModelFileError

Array = NDArray[np.generic]
Tensors = dict[str, Array]

MAX_HEADER = 1_000_000
MAX_TENSORS = 4096
MAX_DIMENSIONS = 8
ITEM_SIZES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_DTYPES: Mapping[str, str] = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "BOOL": "?",
}  # fmt: skip


class Entry(NamedTuple):
    """One tensor of a checked header; `begin` and `end` count from the data's first byte."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Header(NamedTuple):
    """A checked header: tensors in the order of their data, and the metadata map."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]


def looks_like_safetensors(data: bytes) -> bool:
    """Whether `data` starts like a safetensors file: a possible header length, then `{`."""
    return len(data) > 9 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def bfloat16_to_float32(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Widen bfloat16 bit patterns to float32; exact, since a bfloat16 is a float32's upper half."""
    wide = bits.astype("<u4")
    wide <<= 16
    return wide.view("<f4")


def require_finite(array: Array, name: str, where: str) -> None:
    """Refuse NaN and infinity, naming the tensor and the first such index."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    raise ModelFileError(
        f"{where}: tensor {name!r} holds {array[index]} at index {index}, expected finite numbers; "
        "the training has diverged or the file is damaged"
    )


class _HeaderError(ValueError):
    """What the JSON hooks raise, so that the text reaches the user."""


def refuse_repeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An `object_pairs_hook` for `json.loads`: `ValueError` where a JSON object has a key twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _HeaderError(f"the name {twice[:80]!r} comes twice")
    return found


def _integer(text: str) -> int:
    if text.startswith("-") or len(text) > 18:
        raise _HeaderError(f"expected small numbers >= 0, got {text[:24]}")
    return int(text)


def _refuse_number(text: str) -> NoReturn:
    raise _HeaderError(f"expected whole numbers only, got {text[:24]}")


def _parse(header: bytes, where: str) -> dict[str, object]:
    try:
        parsed = json.loads(
            header.decode("utf-8"),
            object_pairs_hook=refuse_repeated,
            parse_int=_integer,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except RecursionError:
        raise ModelFileError(f"{where}: header: nested too deep; not a safetensors file") from None
    except ValueError as error:  # bad UTF-8, bad JSON and our own
        raise ModelFileError(f"{where}: header: {error}; the file is damaged") from None
    if not isinstance(parsed, dict):
        raise ModelFileError(f"{where}: header: expected a JSON object, got {type(parsed).__name__}")
    return parsed


def _valid_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        return False
    return True


def _metadata(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ModelFileError(f"{where}: __metadata__: expected an object, got {type(value).__name__}")
    for key, text in value.items():
        if not isinstance(text, str) or not _valid_text(text) or not _valid_text(key):
            raise ModelFileError(f"{where}: __metadata__: expected text for every key, got other at {key!r}")
    return value


def _entry(name: str, value: object, where: str) -> Entry:
    place = f"{where}: tensor {name[:80]!r}"
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"{place}: expected dtype, shape and data_offsets; the file is damaged")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        known = ", ".join(ITEM_SIZES)
        raise ModelFileError(
            f"{place}: expected a data type of {known}, got {str(dtype)[:24]!r}; save it as F32"
        )
    # bool is an int to Python, so `true` must be refused by exact type.
    if not isinstance(shape, list) or not all(type(n) is int for n in shape):
        raise ModelFileError(f"{place}: shape: expected a list of whole numbers; the file is damaged")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets):
        raise ModelFileError(f"{place}: data_offsets: expected two whole numbers; the file is damaged")
    if len(shape) > MAX_DIMENSIONS:
        raise ModelFileError(f"{place}: expected at most {MAX_DIMENSIONS} dimensions, got {len(shape)}")
    count = 1
    for n in shape:
        count *= n
        if count > 2**40:
            raise ModelFileError(f"{place}: shape: more elements than any file holds; the file is damaged")
    begin, end = offsets
    if end - begin != count * ITEM_SIZES[dtype]:
        raise ModelFileError(
            f"{place}: shape and data type need {count * ITEM_SIZES[dtype]} bytes, "
            f"its offsets span {end - begin}; the file is damaged"
        )
    return Entry(dtype, tuple(shape), begin, end)


def check(data: bytes, where: str) -> Header:
    """Check the bytes of a whole safetensors file without reading a tensor.

    Raises:
        ModelFileError: anything listed in the module's docstring.
    """
    if len(data) < 10:
        raise ModelFileError(f"{where}: expected a safetensors file, got {len(data)} bytes")
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise ModelFileError(
            f"{where}: its header claims {length} bytes but only {len(data) - 8} follow; "
            "the file is cut short or is no safetensors file"
        )
    if length > MAX_HEADER:
        raise ModelFileError(f"{where}: header: expected at most {MAX_HEADER} bytes, got {length}")
    if data[8:9] != b"{":
        raise ModelFileError(f"{where}: header: expected '{{' first, got {data[8:9]!r}; no safetensors file")
    parsed = _parse(data[8 : 8 + length], where)
    metadata = _metadata(parsed.pop("__metadata__", {}), where)
    if len(parsed) > MAX_TENSORS:
        raise ModelFileError(f"{where}: expected at most {MAX_TENSORS} tensors, got {len(parsed)}")
    entries = []
    for name, value in parsed.items():
        if not _valid_text(name):
            raise ModelFileError(f"{where}: tensor {name[:80]!r}: the name is no valid text")
        entries.append((name, _entry(name, value, where)))
    entries.sort(key=lambda item: (item[1].begin, item[1].end))
    at = 0
    for name, entry in entries:
        if entry.begin != at:
            what = "overlaps the one before it" if entry.begin < at else "leaves a gap before it"
            raise ModelFileError(f"{where}: tensor {name[:80]!r} {what}; the file is damaged")
        at = entry.end
    if at != len(data) - 8 - length:
        raise ModelFileError(
            f"{where}: its tensors need {at} bytes but {len(data) - 8 - length} are there; "
            "the file is cut short or something was appended"
        )
    return Header(dict(entries), metadata)


def read_tensors(data: bytes, where: str) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a safetensors file's bytes; bfloat16 comes widened to float32.

    Raises:
        ModelFileError: not a safetensors file, damaged, over a limit, or a value is not finite.
    """
    header = check(data, where)
    start = 8 + int.from_bytes(data[:8], "little")
    tensors: Tensors = {}
    for name, entry in header.tensors.items():
        content = bytearray(memoryview(data)[start + entry.begin : start + entry.end])
        array: Array
        if entry.dtype == "BF16":
            array = bfloat16_to_float32(np.frombuffer(content, "<u2"))
        else:
            array = np.frombuffer(content, _DTYPES[entry.dtype])
        tensors[name] = array.reshape(entry.shape)
        require_finite(tensors[name], name, where)
    return tensors, header.metadata


def write_tensors(tensors: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file; equal arguments give equal bytes.

    Give at most one metadata key: the package keeps them in a hash map whose order it does not promise.

    Raises:
        ModelFileError: the file would be over this reader's own limits.
    """
    from safetensors import numpy as safetensors_numpy

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    data = bytes(safetensors_numpy.save(arrays, metadata=dict(metadata)))
    check(data, "the file to be written")
    return data
