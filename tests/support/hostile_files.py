"""Weight files made to do harm: each with the words its refusal must hold.

`TORCH` and `SAFETENSORS` map what is wrong to (bytes, regular expression). The calls in them are real: the
standard unpickler would make them and leave a file called `CANARY` behind.
"""

from __future__ import annotations

import builtins
import json
import os
import pickle
import pkgutil
import struct
import tarfile
from collections.abc import Callable
from io import BytesIO

from tests.support import torch_files as tf

CANARY = "canary-of-the-torch-reader"


class Call:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


def _zip(pickled: bytes, **storages: bytes) -> bytes:
    return tf.archive(pickled, {"0": bytes(64), **storages})


def _one(value: bytes) -> bytes:
    return _zip(tf.PROTOCOL + tf.dictionary({"w": value}) + tf.STOP)


def _good() -> bytes:
    return tf.PROTOCOL + tf.arrays_pickle(tf.small_arrays())


def _deep(opener: bytes, closer: bytes, n: int) -> bytes:
    return _zip(tf.PROTOCOL + opener * n + b"N" + closer * n + tf.STOP)


def _laugh(fan: int, levels: int) -> bytes:
    """Dicts of `fan` references to the same dict below, `levels` high: fan ** levels paths."""
    program = tf.dictionary({"x": b"N"})
    for level in range(levels):
        others = b"".join(tf.text(str(i)) + b"h" + bytes([level]) for i in range(1, fan))
        program = b"}(" + tf.text("0") + program + b"q" + bytes([level]) + others + b"u"
    return _one(program)


def _one_list_many_times(n: int) -> bytes:
    """A list of n dicts of an optimiser's shape, under n names."""
    optimiser = tf.dictionary({"state": b"N", "param_groups": b"N"})
    items = b"".join(tf.text(str(i)) + b"h\x01" for i in range(n))
    shared = b"](" + optimiser + b"q\x02" + b"h\x02" * n + b"Ne"
    return _one(b"}(" + tf.text("x") + shared + b"q\x01" + items + b"u")


def _crowd(tensors: int, kind: str = "FloatStorage", size: int = 4) -> bytes:
    """A zip of 64 KB whose tensors all look into one storage of 64 KB."""
    count = 65536 // size
    view = tf.tensor("0", (count,), (1,), count=count, kind=kind)
    items = {f"t{i}": view for i in range(tensors)}
    return tf.archive(tf.PROTOCOL + tf.dictionary(items) + tf.STOP, {"0": bytes(65536)})


def _tar() -> bytes:
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, BytesIO(b"abcd"))
    return stream.getvalue()


def _touch() -> bytes:
    return b"(" + tf.text(f"touch {CANARY}") + b"t"


def _crowded_directory(entries: int) -> bytes:
    return tf.zip_bytes((f"m/{i}", b"") for i in range(entries))


TORCH: dict[str, tuple[Callable[[], bytes], str]] = {
    "os.system": (
        lambda: _zip(pickle.dumps(Call(os.system, f"touch {CANARY}"), 2)),
        "system'.*nothing was exec",
    ),
    "os.system, protocol 4": (lambda: _zip(pickle.dumps(Call(os.system, f"touch {CANARY}"), 4)), "system"),
    "eval in a value": (
        lambda: _zip(pickle.dumps({"w": Call(builtins.eval, f"open('{CANARY}','w')")}, 2)),
        "eval",
    ),
    "resolve_name": (lambda: _zip(pickle.dumps(Call(pkgutil.resolve_name, "os:system"), 2)), "resolve_name"),
    "builtins.getattr": (lambda: _zip(pickle.dumps(Call(getattr, Call, "x"), 2)), "getattr"),
    "INST": (
        lambda: _zip(b"(S'touch " + CANARY.encode() + b"'\nios\nsystem\n."),
        "opcode STRING|opcode INST",
    ),
    "INST alone": (
        lambda: _zip(b"\x80\x02(" + tf.text(f"touch {CANARY}") + b"ios\nsystem\n."),
        "opcode INST",
    ),
    "OBJ": (lambda: _zip(b"\x80\x02(cos\nsystem\n" + tf.text(f"touch {CANARY}") + b"o."), "opcode OBJ"),
    "NEWOBJ": (lambda: _zip(b"\x80\x02csubprocess\nPopen\n(" + tf.text(CANARY) + b"t\x81."), "Popen"),
    "EXT1": (lambda: _zip(b"\x80\x02\x82\x01."), "opcode EXT1"),
    "PERSID": (lambda: _zip(b"\x80\x02P0\n."), "opcode PERSID"),
    "a call before a good dict": (
        lambda: _zip(b"\x80\x02cos\nsystem\n" + _touch() + b"R0" + _good()[2:] + b"."),
        "sys",
    ),
    "a call after a good dict": (lambda: _zip(_good() + b"0cos\nsystem\n" + _touch() + b"R."), "opcode POP"),
    "a call in BUILD": (lambda: _zip(_good() + b"cos\nsystem\n" + _touch() + b"Rb."), "system"),
    "attributes by BUILD": (lambda: _zip(_good() + b"}" + tf.text("__class__") + b"Nsb."), "sets attributes"),
    "tensor in the metadata": (
        lambda: _zip(
            b"\x80\x02ccollections\nOrderedDict\n)R}"
            + tf.text("_metadata")
            + tf.tensor("0", (2,), (1,))
            + b"sb."
        ),
        "hidden in the metadata",
    ),
    "a name looks like ours": (
        lambda: _one(tf.name("torch._utils._rebuild_tensor_v3") + b")R"),
        "_rebuild_tensor_v3",
    ),
    "subclass": (
        lambda: _one(tf.name("torch._tensor._rebuild_from_type_v2") + b")R"),
        "_rebuild_from_type_v2",
    ),
    "OrderedDict with content": (
        lambda: _zip(b"\x80\x02ccollections\nOrderedDict\n](]Nae\x85R."),
        "arguments",
    ),
    "beyond its storage": (
        lambda: _one(tf.tensor("0", (4, 4), (1000, 1))),
        "'w' reaches element 3003 of a storage of 16",
    ),
    "offset beyond": (lambda: _one(tf.tensor("0", (4,), (1,), offset=13)), "reaches element 16"),
    "stride 0, 2 G elements": (
        lambda: _one(tf.tensor("0", (2_000_000_000,), (0,))),
        "2000000000 elements on a storage",
    ),
    "stride 0 and a lying storage": (
        lambda: _one(tf.tensor("0", (2_000_000_000,), (0,), count=2_000_000_000)),
        "times the file's size",
    ),
    "storage shorter than claimed": (
        lambda: _one(tf.tensor("0", (17,), (1,), count=17)),
        "68 bytes needed, 64 there",
    ),
    "negative offset": (lambda: _one(tf.tensor("0", (4,), (1,), offset=-4)), "no counts"),
    "negative size": (lambda: _one(tf.tensor("0", (-1,), (1,))), "no counts"),
    "negative stride": (lambda: _one(tf.tensor("0", (2,), (-1,), offset=4)), "no counts"),
    "huge numbers": (
        lambda: _one(tf.tensor("0", (2**200, 0, 2), (2**300, 1, 1), kind="ByteStorage")),
        "recurrent",
    ),
    "huge stride": (lambda: _one(tf.tensor("0", (2,), (2**300,))), "reaches element"),
    "forty dimensions": (lambda: _one(tf.tensor("0", (1,) * 40, (1,) * 40)), "at most 4 dimensions"),
    "negated": (lambda: _one(tf.tensor("0", (2,), (1,), tail=tf.dictionary({"neg": b"\x88"}))), "flags"),
    "hooks": (lambda: _one(tf.tensor("0", (2,), (1,), hooks=tf.dictionary({"a": b"N"}))), "hooks"),
    "storage out of the archive": (
        lambda: _one(tf.tensor("../data.pkl", (2,), (1,))),
        "storage '../data.pkl' is missing",
    ),
    "storage of two types": (
        lambda: _zip(
            tf.PROTOCOL
            + tf.dictionary(
                {
                    "a": tf.tensor("0", (2,), (1,)),
                    "b": tf.tensor("0", (2,), (1,), kind="LongStorage"),
                }
            )
            + b"."
        ),
        "two types or sizes",
    ),
    "unknown storage": (lambda: _one(tf.tensor("0", (2,), (1,), kind="QInt8Storage")), "quantised"),
    "storage class of another module": (
        lambda: _one(tf.tensor("0", (2,), (1,)).replace(b"ctorch\nFloat", b"cevil_\nFloat")),
        "storage class",
    ),
    "400 tensors on one storage": (lambda: _crowd(400), "times the file's size"),
    "2,000 half tensors on one storage": (
        lambda: _crowd(2000, "BFloat16Storage", 2),
        "times the file's size",
    ),
    "3,000 tensors": (
        lambda: _zip(
            tf.PROTOCOL + tf.dictionary({f"{i}": tf.tensor("0", (), ()) for i in range(3000)}) + b"."
        ),
        "more than 2048 tensors",
    ),
    "the same name twice": (
        lambda: _zip(tf.PROTOCOL + tf.dictionary([(tf.text("a"), tf.tensor("0", (2,), (1,)))] * 2) + b"."),
        "twice",
    ),
    "a number as name": (
        lambda: _zip(
            tf.PROTOCOL
            + tf.dictionary(
                [
                    (tf.text("0"), tf.tensor("0", (2,), (1,))),
                    (tf.number(0), tf.tensor("0", (2,), (1,))),
                ]
            )
            + b"."
        ),
        "'0' is a View|'0' ",
    ),
    "60,000 dicts deep": (lambda: _deep(b"}" + tf.text("a"), b"s", 60_000), "operations"),
    "40,000 tuples deep": (lambda: _deep(b"", b"\x85", 40_000), "got a tuple"),
    "billion laughs": (lambda: _laugh(40, 7), "recurrent"),
    "billion laughs, deep": (lambda: _laugh(40, 200), "recurrent"),
    "one long list 20,000 times": (lambda: _one_list_many_times(20_000), "recurrent"),
    "a list in itself": (lambda: _zip(b"\x80\x02}" + tf.text("a") + b"]q\x00h\x00as."), "no recurrent layer"),
    "a dict in itself": (lambda: _zip(b"\x80\x02}q\x00" + tf.text("a") + b"h\x00s."), "no recurrent layer"),
    "LONG_BINPUT 2**31": (lambda: _zip(b"\x80\x02Nr\xff\xff\xff\x7f."), "got a NoneType"),
    "BINBYTES8 of 1 TiB": (
        lambda: _zip(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x."),
        "damaged pickle",
    ),
    "LONG4 of 2 GB": (lambda: _zip(b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x."), "damaged pickle"),
    "text of 4 GB": (lambda: _zip(b"\x80\x02X\xff\xff\xff\xffx."), "damaged pickle"),
    "an INT of a million digits": (lambda: _zip(b"\x80\x02I" + b"9" * 1_000_000 + b"\n."), "pickle"),
    "pickle over its limit": (lambda: _zip(b"\x80\x02" + b"N" * (1 << 20) + b"."), "over 1048576 bytes"),
    "no STOP": (lambda: _zip(b"\x80\x02}"), "pickle"),
    "STOP with nothing": (lambda: _zip(b"\x80\x02."), "value is missing"),
    "values left over": (lambda: _zip(b"\x80\x02NN."), "left on the stack"),
    "mark instead of a value": (lambda: _zip(b"\x80\x02(."), "value is missing"),
    "entry twice": (
        lambda: tf.zip_bytes([("m/data.pkl", _good() + b"."), ("m/data.pkl", b"\x80\x02N.")]),
        "twice",
    ),
    "two pickles": (lambda: tf.zip_bytes([("m/data.pkl", b"N."), ("n/data.pkl", b"N.")]), "no single"),
    "compressed": (lambda: tf.zip_bytes([("m/data.pkl", _good() + b".")], method=8), "compressed"),
    "encrypted": (lambda: tf.zip_bytes([("m/data.pkl", _good() + b".")], flags=0x801), "encrypted"),
    "5,000 entries": (lambda: _crowded_directory(5000), "4096 zip entries"),
    "60,000 entries": (lambda: _crowded_directory(60_000), "4096 zip entries"),
    "a .npz": (lambda: tf.zip_bytes([("a.npy", b"x")]), "not a PyTorch file"),
    "big-endian": (lambda: tf.zip_bytes([("m/data.pkl", b"N."), ("m/byteorder", b"big")]), "big-endian"),
    "something appended": (lambda: _zip(_good() + b".") + b"x", "appended"),
    "cut in the middle": (lambda: _zip(_good() + b".")[:900], "cut short"),
    "bare pickle": (lambda: pickle.dumps(Call(os.system, f"touch {CANARY}"), 2), "bare pickle"),
    "bare pickle of a number": (lambda: pickle.dumps(1, 2), "bare pickle"),
    "tar": (_tar, "tar format of torch before 0.1.10"),
    "old format, 30 x 64 MB claimed": (
        lambda: tf.legacy_file(
            tf.dictionary({f"t{i}": tf.tensor(str(i), (1,), (1,), count=1 << 24) for i in range(30)}),
            {str(i): (1 << 24, b"") for i in range(30)},
        ),
        "cut short",
    ),
    "old format, counts that disagree": (
        lambda: tf.legacy_file(tf.dictionary({"a": tf.tensor("0", (2,), (1,))}), {"0": (15, bytes(64))}),
        "15 elements",
    ),
    "old format, storage not listed": (
        lambda: tf.legacy_file(tf.dictionary({"a": tf.tensor("0", (2,), (1,))}), {"1": (16, bytes(64))}),
        "list of",
    ),
    "old format, bytes left over": (
        lambda: tf.legacy_file(tf.dictionary({"a": tf.tensor("0", (2,), (1,))}), {"0": (16, bytes(65))}),
        "after the last",
    ),
    "old format, a call": (lambda: tf.legacy_file(b"cos\nsystem\n" + _touch() + b"R", {}), "system"),
    "old format, source code": (
        lambda: tf.legacy_file(
            b"(" + tf.text("module") + b"c__main__\nNet\n" + tf.text("a.py") + tf.text("x") + b"tQ", {}
        ),
        "whole model with its source code",
    ),
}


# --- safetensors ---


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of this header (JSON made here unless it is bytes) and data; `length` can lie."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def _entry(shape: list[int], begin: int, end: int, dtype: str = "F32", **more: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


def _tensors(*entries: dict[str, object]) -> dict[str, object]:
    return {f"t{i}": entry for i, entry in enumerate(entries)}


SAFETENSORS: dict[str, tuple[Callable[[], bytes], str]] = {
    "overlap": (lambda: safetensors(_tensors(_entry([2], 0, 8), _entry([2], 4, 12)), bytes(12)), "overlaps"),
    "gap": (lambda: safetensors(_tensors(_entry([1], 0, 4), _entry([1], 8, 12)), bytes(12)), "gap"),
    "does not start at 0": (lambda: safetensors(_tensors(_entry([1], 4, 8)), bytes(8)), "gap"),
    "appended": (lambda: safetensors(_tensors(_entry([1], 0, 4)), bytes(5)), "appended"),
    "cut short": (lambda: safetensors(_tensors(_entry([1], 0, 4)), bytes(3)), "cut short"),
    "shape and size": (lambda: safetensors(_tensors(_entry([3], 0, 4)), bytes(4)), "need 12 bytes"),
    "negative offset": (lambda: safetensors(_tensors(_entry([1], -4, 0)), b""), ">= 0"),
    "negative shape": (lambda: safetensors(_tensors(_entry([-1, -1], 0, 4)), bytes(4)), ">= 0"),
    "overflow": (lambda: safetensors(_tensors(_entry([2**32, 2**32], 0, 0)), b""), "more elements"),
    "overflow hidden by a 0": (
        lambda: safetensors(_tensors(_entry([2**40, 2**40, 0], 0, 0)), b""),
        "more el",
    ),
    "a number of 10,000 digits": (lambda: safetensors(b'{"a":' + b"9" * 10_000 + b"}"), "small numbers"),
    "floats": (lambda: safetensors(_tensors(_entry([1.0], 0, 4)), bytes(4)), "whole numbers"),  # type: ignore[list-item]
    "true as 1": (lambda: safetensors(_tensors(_entry([True], 0, 4)), bytes(4)), "whole numbers"),
    "NaN as a number": (lambda: safetensors(b'{"a":NaN}'), "whole numbers"),
    "text as shape": (lambda: safetensors(_tensors(_entry("1", 0, 4)), bytes(4)), "whole numbers"),  # type: ignore[arg-type]
    "unknown type": (lambda: safetensors(_tensors(_entry([1], 0, 1, "F8_E5M2")), bytes(1)), "F8_E5M2"),
    "a type that is a list": (
        lambda: safetensors({"a": {**_entry([1], 0, 4), "dtype": ["F32"]}}, bytes(4)),
        "data type",
    ),
    "an extra key": (
        lambda: safetensors(_tensors(_entry([1], 0, 4, more=1)), bytes(4)),
        "expected dtype, shape",
    ),
    "a name twice": (
        lambda: safetensors(
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        "comes twice",
    ),
    "a key twice inside": (
        lambda: safetensors(b'{"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "twice",
    ),
    "150,000 names, the last twice": (
        lambda: safetensors(b"{" + b",".join(b'"%x":0' % i for i in range(90_000)) + b',"1":0}'),
        "comes twice",
    ),
    "5,000 empty tensors": (
        lambda: safetensors(_tensors(*[_entry([0], 0, 0)] * 5000)),
        "at most 4096 tensors",
    ),
    "header over 1 MB": (lambda: safetensors(b'{"a":"' + b"x" * 1_000_000 + b'"}'), "at most 1000000 bytes"),
    "header longer than the file": (lambda: safetensors({}, length=1 << 40) + bytes(4), "claims"),
    "header of 2**64 - 1": (lambda: safetensors({}, length=2**64 - 1) + bytes(4), "claims"),
    "header starts with a blank": (lambda: safetensors(b' {"a":1}'), "'{' first"),
    "header is a list": (lambda: safetensors(b"[]" + bytes(8)), "'{' first"),
    "100,000 lists deep": (lambda: safetensors(b'{"a":' + b"[" * 100_000), "nested too deep|damaged"),
    "bad UTF-8": (lambda: safetensors(b'{"\xff":1}'), "utf-8"),
    "half a surrogate pair": (lambda: safetensors({"\ud800": _entry([1], 0, 4)}, bytes(4)), "no valid text"),
    "metadata no object": (lambda: safetensors({"__metadata__": 1}), "expected an object"),
    "metadata no text": (lambda: safetensors({"__metadata__": {"a": {"b": "c"}}}), "expected text"),
    "metadata half a pair": (lambda: safetensors({"__metadata__": {"a": "\udfff"}}), "expected text"),
    "JSON cut short": (lambda: safetensors(b'{"a":{"dtype":"F32"'), "damaged"),
    "two JSON documents": (lambda: safetensors(b"{}{}"), "damaged"),
    "nine dimensions": (lambda: safetensors(_tensors(_entry([1] * 9, 0, 4)), bytes(4)), "at most 8 dim"),
    "NaN": (
        lambda: safetensors(_tensors(_entry([2], 0, 8)), struct.pack("<2f", 1, float("nan"))),
        r"'t0' holds nan at index \(1,\)",
    ),
    "infinite half": (lambda: safetensors(_tensors(_entry([1], 0, 2, "F16")), b"\x00\x7c"), "holds inf"),
    "infinite bfloat16": (
        lambda: safetensors(_tensors(_entry([1], 0, 2, "BF16")), b"\x80\xff"),
        "holds -inf",
    ),
}
