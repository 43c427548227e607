"""Mutants of model and weight files: only a ModelFileError may come out, whatever the bytes.

Checksums are made right again after each mutation (zip CRCs, header lengths, our digests), or most mutants
would end at the first check and show nothing about what is behind it. Every test counts what it saw, so that
none passes because all its mutants fell at the same hurdle.
"""

from __future__ import annotations

import json
import random
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import msgspec
import pytest
import safetensors

from edge_rnn.core.digest import weights_digest
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import SelfTest
from edge_rnn.errors import ModelFileError
from edge_rnn.files import model_document, model_file, safetensors_file
from edge_rnn.files.load import decode
from edge_rnn.files.model_file import KEY, encode_model
from tests.support import models
from tests.support import torch_files as tf

MUTANTS = 20_000


def mutate(rng: random.Random, data: bytes, alphabet: bytes = b"") -> bytes:
    """A few edits: bytes replaced, removed, doubled, moved or inserted."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(out) + 1)
        kind = rng.random()
        value = (
            rng.choice(alphabet)
            if alphabet and rng.random() < 0.6
            else rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        )
        if kind < 0.55 and at < len(out):
            out[at] = value
        elif kind < 0.7:
            out[at:at] = bytes([value])
        elif kind < 0.82:
            del out[at : at + rng.choice((1, 1, 2, 4, 16))]
        elif kind < 0.94:
            source = rng.randrange(len(out) + 1)
            out[at : at + rng.choice((0, 4, 8))] = out[source : source + rng.choice((1, 4, 8, 30))]
        else:
            del out[at:]
        if not out:
            return b"\0"
    return bytes(out)


def outcomes(mutants: Iterator[bytes], read: Callable[[bytes], object]) -> Counter[str]:
    """How the mutants ended; an error that is not a ModelFileError ends the test with its mutant's number."""
    seen: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, data in enumerate(mutants):
            try:
                read(data)
                seen["loaded"] += 1
            except ModelFileError as error:
                text = str(error)
                assert text.isprintable(), (number, text)
                assert len(text) < 1500, (number, text)
                seen["refused"] += 1
                seen[text.partition(": ")[2][:24]] += 1
            except Exception as error:  # noqa: BLE001  (any other error is what this test looks for)
                pytest.fail(f"mutant {number}: {type(error).__name__}: {error}: {data!r}")
    return seen


def read_any(data: bytes) -> object:
    return decode(data, "m", allow_legacy=True)


# --- PyTorch files ---

# What the interpreter knows, so that mutated programs often go on instead of ending at an unknown opcode.
OPCODES = b"(.0N\x88\x89JKM}]),tu\x85\x86\x87asebqrhjcRQX\x8c\x94\x93\x8a"


def torch_mutants(seed: int, n: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    arrays = tf.small_arrays()
    pickled = tf.PROTOCOL + tf.arrays_pickle(arrays) + tf.STOP
    storages = {str(i): a.tobytes() for i, a in enumerate(arrays.values())}
    whole, old = tf.torch_file(arrays), tf.legacy_arrays(arrays)
    nested = tf.PROTOCOL + tf.dictionary({"epoch": tf.number(1), "net": tf.arrays_pickle(arrays)}) + tf.STOP
    for _ in range(n):
        kind = rng.random()
        if kind < 0.45:
            yield tf.archive(mutate(rng, pickled, OPCODES), storages)
        elif kind < 0.6:
            yield tf.archive(mutate(rng, nested, OPCODES), storages)
        elif kind < 0.7:
            cut = {k: mutate(rng, v) for k, v in storages.items() if rng.random() < 0.9}
            yield tf.archive(pickled, cut)
        elif kind < 0.85:
            yield mutate(rng, whole)
        else:
            yield mutate(rng, old, OPCODES)


def test_mutants_of_torch_files_give_a_model_or_a_typed_error() -> None:
    seen = outcomes(torch_mutants(1, MUTANTS), read_any)
    assert seen["loaded"] + seen["refused"] == MUTANTS
    assert seen["loaded"] > MUTANTS // 50
    assert len(seen) > 100, "the mutants should reach many different checks"


# --- our model file ---


def pack(header: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def unpack(data: bytes) -> tuple[bytes, bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return data[8 : 8 + length], data[8 + length :]


def resealed(data: bytes) -> bytes:
    """The same file with the digests its content has, if it gets as far as a model."""
    try:
        tensors, metadata = safetensors_file.read_tensors(data, "m")
        document = msgspec.json.decode(metadata[KEY], type=model_document.Document)
        model = model_file._build(document, model_file._Taker(tensors, "m"))
    except (ModelFileError, ValueError, KeyError, RecursionError):
        return data
    digests = model_document.DigestSection(weights=weights_digest(model), state=StateLayout(model).digest)
    header = json.loads(unpack(data)[0])
    header["__metadata__"][KEY] = msgspec.json.encode(
        msgspec.structs.replace(document, digests=digests)
    ).decode()
    return pack(json.dumps(header).encode(), unpack(data)[1])


JSON = b'{}[]:,"0123456789.-eE nulltrefasNI\\u'
VALUES = (
    None,
    True,
    -1,
    0,
    1,
    2,
    17,
    2**31,
    2**63,
    2**80,
    0.5,
    -1e308,
    1e-320,
    "",
    "lstm",
    "gru",
    "none",
    [],
    {},
    [[]],
)


def change_one_value(rng: random.Random, document: object) -> None:
    """Replace, drop or double one value somewhere in a JSON document."""
    here = document
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))  # type: ignore[call-overload]
        if not keys:
            return
        key = rng.choice(keys)
        inner = here[key]  # type: ignore[index]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            here = inner
            continue
        kind = rng.random()
        if kind < 0.6:
            here[key] = rng.choice(VALUES)  # type: ignore[index]
        elif kind < 0.8:
            del here[key]  # type: ignore[attr-defined]
        elif isinstance(here, list):
            here.append(inner)
        else:
            here[f"{key}x"] = inner  # type: ignore[index]
        return


def model_mutants(seed: int, n: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    model = models.forecaster(hidden=2)
    assert model.self_test is not None
    short = SelfTest(model.self_test.x[:4], model.self_test.y[:4], model.self_test.tolerance)
    data = encode_model(replace(model, self_test=short))
    header, body = unpack(data)
    parsed = json.loads(header)
    text = parsed["__metadata__"][KEY]
    for _ in range(n):
        kind = rng.random()
        if kind < 0.25:  # numbers of the document, still JSON
            document = json.loads(text)
            for _ in range(rng.choice((1, 1, 2))):
                change_one_value(rng, document)
            parsed["__metadata__"][KEY] = json.dumps(document)
            yield resealed(pack(json.dumps(parsed).encode(), body))
        elif kind < 0.45:  # bytes of the document
            raw = mutate(rng, text.encode(), JSON).decode("utf-8", "replace")
            parsed["__metadata__"][KEY] = raw
            yield resealed(pack(json.dumps(parsed).encode(), body))
        elif kind < 0.6:  # entries of the header, still JSON
            changed = json.loads(header)
            change_one_value(rng, changed)
            yield resealed(pack(json.dumps(changed).encode(), body))
        elif kind < 0.75:
            yield pack(mutate(rng, header, JSON), body)
        elif kind < 0.9:  # weights, self-test and rest state, with right digests
            at, changed_body = rng.randrange(len(body)), bytearray(body)
            changed_body[at] = rng.randrange(256)
            yield resealed(pack(header, bytes(changed_body)))
        else:
            yield mutate(rng, data)


def test_mutants_of_model_files_give_a_model_or_a_typed_error() -> None:
    seen = outcomes(model_mutants(2, MUTANTS), read_any)
    assert seen["loaded"] + seen["refused"] == MUTANTS
    assert seen["loaded"] > MUTANTS // 50
    assert seen["refused"] > MUTANTS // 4
    assert any("self-test" in text for text in seen), "weights changed under right digests meet the self-test"
    assert len(seen) > 100, "the mutants should reach many different checks"


# --- safetensors: accept is a part of what the package accepts ---


def safetensors_mutants(seed: int, n: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    arrays = {"a": [2, 3], "b": [], "c": [4], "d": [0, 2]}
    header, body = {"__metadata__": {"k": "v"}}, b""
    for (name, shape), (dtype, size) in zip(
        arrays.items(), (("F32", 24), ("F64", 8), ("BF16", 8), ("I8", 0)), strict=True
    ):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + size]}  # type: ignore[dict-item]
        body += bytes(size)
    text = json.dumps(header).encode()
    for _ in range(n):
        kind = rng.random()
        if kind < 0.5:
            changed = json.loads(text)
            for _ in range(rng.choice((1, 1, 2))):
                change_one_value(rng, changed)
            yield pack(json.dumps(changed).encode() + rng.choice((b"", b"", b" ", b"\n", b"\0")), body)
        elif kind < 0.85:
            yield pack(mutate(rng, text, JSON), body)
        else:
            yield mutate(rng, pack(text, body))


def test_what_our_check_accepts_the_package_reads_in_the_same_way() -> None:
    seen: Counter[str] = Counter()
    for data in safetensors_mutants(3, MUTANTS):
        try:
            header = safetensors_file.check(data, "m")
        except ModelFileError:
            seen["refused"] += 1
            continue
        seen["accepted"] += 1
        theirs = dict(safetensors.deserialize(data))
        assert {k: (v["dtype"], tuple(v["shape"]), len(v["data"])) for k, v in theirs.items()} == {
            k: (e.dtype, e.shape, e.end - e.begin) for k, e in header.tensors.items()
        }
        with suppress(ModelFileError):  # not finite
            for name, array in safetensors_file.read_tensors(data, "m")[0].items():
                content = array.view("<u4") >> 16 if theirs[name]["dtype"] == "BF16" else array
                width = "<u2" if theirs[name]["dtype"] == "BF16" else content.dtype
                assert content.astype(width).tobytes() == bytes(theirs[name]["data"])
                seen["read"] += 1
    assert seen["read"] > MUTANTS // 100
    assert seen["accepted"] > MUTANTS // 100
    assert seen["refused"] > MUTANTS // 4


def test_the_resealed_file_is_one_that_loads() -> None:
    """The sealing above works: a changed weight under right digests passes the digest check."""
    model = models.forecaster(hidden=2)
    header, body = unpack(encode_model(replace(model, self_test=None)))
    changed = bytearray(body)
    changed[3] ^= 0x01
    with pytest.raises(ModelFileError, match="digest of the weights"):
        read_any(pack(header, bytes(changed)))
    read_any(resealed(pack(header, bytes(changed))))
