"""PyTorch files built by hand, byte by byte, so that tests can lie in every field and need no torch."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping

import numpy as np

PROTOCOL = b"\x80\x02"
STOP = b"."


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """BININT where it fits, else LONG1."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(dotted: str) -> bytes:
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def storage(key: str, count: int, kind: str = "FloatStorage") -> bytes:
    return b"(" + text("storage") + name(f"torch.{kind}") + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(
    key: str,
    size: Iterable[int],
    stride: Iterable[int],
    *,
    offset: int = 0,
    count: int = 16,
    kind: str = "FloatStorage",
    tail: bytes = b"",
    hooks: bytes = b"}",
) -> bytes:
    """A `_rebuild_tensor_v2` call; `tail` is a seventh argument."""
    return (
        name("torch._utils._rebuild_tensor_v2") + b"(" + storage(key, count, kind) + number(offset)
        + numbers(size) + numbers(stride) + b"\x89" + hooks + tail + b"tR"
    )  # fmt: skip


def dictionary(items: Mapping[str, bytes] | Iterable[tuple[bytes, bytes]]) -> bytes:
    """A dict of pickled values; keys as text, or pickled by the caller."""
    pairs = [(text(k), v) for k, v in items.items()] if isinstance(items, Mapping) else items
    return b"}(" + b"".join(k + v for k, v in pairs) + b"u"


def contiguous(shape: tuple[int, ...]) -> list[int]:
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return strides[::-1]


def arrays_pickle(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The dict of a float32 state dict, storages keyed "0", "1", ..."""
    return dictionary(
        {
            k: tensor(str(i), a.shape, contiguous(a.shape), count=a.size)
            for i, (k, a) in enumerate(arrays.items())
        }
    )


def zip_bytes(entries: Iterable[tuple[str, bytes]], *, flags: int = 0x800, method: int = 0) -> bytes:
    """An archive of stored entries with right checksums; `flags` and `method` can lie."""
    body, directory, count = bytearray(), bytearray(), 0
    for entry, content in entries:
        label = entry.encode()
        facts = struct.pack(
            "<HHHHHIIIHH", 20, flags, method, 0, 0x21, zlib.crc32(content), len(content), len(content),
            len(label), 0,
        )  # fmt: skip
        directory += b"PK\x01\x02\x14\x00" + facts + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + label
        body += b"PK\x03\x04" + facts + label + content
        count += 1
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)
    return bytes(body + directory) + b"PK\x05\x06" + end


def archive(pickled: bytes, storages: Mapping[str, bytes], folder: str = "m") -> bytes:
    """A `.pt` file: the whole pickle and the raw storages."""
    entries = [
        (f"{folder}/data.pkl", pickled),
        (f"{folder}/byteorder", b"little"),
        (f"{folder}/version", b"3\n"),
    ]
    return zip_bytes(entries + [(f"{folder}/data/{k}", v) for k, v in storages.items()])


def torch_file(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A `.pt` file of a float32 state dict."""
    storages = {str(i): a.astype("<f4").tobytes() for i, a in enumerate(arrays.values())}
    return archive(PROTOCOL + arrays_pickle(arrays) + STOP, storages)


def legacy_file(pickled: bytes, storages: Mapping[str, tuple[int, bytes]]) -> bytes:
    """An old-format file: the object's pickle without protocol and stop, and (count, bytes) per storage."""
    magic = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
    facts = dictionary({"protocol_version": number(1001), "little_endian": b"\x88"})
    keys = b"](" + b"".join(map(text, storages)) + b"e"
    parts = [b"\x8a\x0a" + magic, number(1001), facts, pickled, keys]
    head = b"".join(PROTOCOL + part + STOP for part in parts)
    return head + b"".join(struct.pack("<q", count) + raw for count, raw in storages.values())


def legacy_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An old-format file of a float32 state dict."""
    storages = {str(i): (a.size, a.astype("<f4").tobytes()) for i, a in enumerate(arrays.values())}
    # The old format names a view beside each storage, always None today.
    return legacy_file(arrays_pickle(arrays).replace(b"tQ", b"NtQ"), storages)


def small_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """A GRU of 2 inputs and 2 units with a linear head, as a state dict."""
    rng = np.random.default_rng(seed)
    shapes = {
        "gru.weight_ih_l0": (6, 2), "gru.weight_hh_l0": (6, 2), "gru.bias_ih_l0": (6,),
        "gru.bias_hh_l0": (6,), "fc.weight": (1, 2), "fc.bias": (1,),
    }  # fmt: skip
    return {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
