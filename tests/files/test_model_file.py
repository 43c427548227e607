"""Our model file: what is saved comes back, equal models give equal bytes, nothing goes unread."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge_rnn
from edge_rnn.core.detector_spec import DetectorSpec
from edge_rnn.core.digest import weights_digest
from edge_rnn.core.layout import StateLayout
from edge_rnn.core.model import CELLS, Input, Model, Scaler, SelfTest
from edge_rnn.core.reference import Reference
from edge_rnn.errors import ModelFileError
from edge_rnn.files import model_document, model_file, torch_pickle
from edge_rnn.files.model_file import KEY, check_self_test, decode_model, encode_model, save
from edge_rnn.files.safetensors_file import ITEM_SIZES
from tests.support import models


def same(a: Model, b: Model) -> bool:
    """Whether two models agree in every section, floats bit for bit."""
    return encode_model(a) == encode_model(b)


def edited(data: bytes, change) -> bytes:
    """The file with its JSON document replaced by `change(document)`, digests left alone."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    document = change(json.loads(header["__metadata__"][KEY]))
    header["__metadata__"][KEY] = document if isinstance(document, str) else json.dumps(document)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def test_every_section_comes_back_exactly(tmp_path: Path) -> None:
    model = models.forecaster()
    save(model, tmp_path / "pump.safetensors")
    loaded = edge_rnn.load(tmp_path / "pump.safetensors")
    assert same(model, loaded)
    assert loaded.name == "pump"
    assert loaded.inputs == model.inputs
    assert loaded.detector == model.detector
    assert model.scaler is not None
    assert loaded.scaler is not None
    assert loaded.scaler.mean.tobytes() == model.scaler.mean.tobytes()
    assert loaded.scaler.std.tobytes() == model.scaler.std.tobytes()
    assert loaded.activation_ranges == model.activation_ranges
    assert loaded.provenance == model.provenance
    for got, expected in zip(loaded.layers, model.layers, strict=True):
        for part in ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr"):
            a, b = getattr(got, part), getattr(expected, part)
            assert (a is None) == (b is None)
            assert a is None or a.tobytes() == b.tobytes()
    assert loaded.rest_state is not None
    assert model.rest_state is not None
    assert loaded.rest_state.h[0].tobytes() == model.rest_state.h[0].tobytes()
    assert loaded.rest_state.c[1] is None
    assert loaded.self_test is not None
    assert model.self_test is not None
    assert loaded.self_test.y.tobytes() == model.self_test.y.tobytes()
    assert loaded.self_test.tolerance == model.self_test.tolerance


@settings(max_examples=60)
@given(
    cells=st.lists(st.sampled_from(CELLS), min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 6), min_size=4, max_size=4),
    bias=st.booleans(),
    head=st.lists(st.sampled_from(["none", "relu", "tanh", "sigmoid", "softmax"]), max_size=3),
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\\~"), max_size=12),
    mean=st.floats(allow_nan=False, allow_infinity=False),
    std=st.floats(min_value=5e-324, allow_nan=False, allow_infinity=False),
    facts=st.dictionaries(
        st.text("abc", min_size=1, max_size=4),
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.lists(st.text("xyz ä", max_size=5), max_size=3),
        max_size=3,
    ),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_any_model_survives_the_round_trip(cells, sizes, bias, head, name, mean, std, facts, seed) -> None:
    rng = np.random.default_rng(seed)
    size, layers = sizes[0], []
    for cell, hidden in zip(cells, sizes[1:], strict=False):
        projection = hidden - 1 if cell == "lstm" and hidden > 1 and bias else 0
        layers.append(models.layer(rng, cell, size, hidden, bias=bias, projection=projection))
        size = layers[-1].output_size
    linears = []
    for activation in head:
        linears.append(models.linear(rng, size, 2, activation, bias=not bias))
        size = 2
    inputs = tuple(Input(f"{i}{name}", name) for i in range(sizes[0]))
    scaler = Scaler(np.full(sizes[0], mean), np.full(sizes[0], std))
    model = Model(tuple(layers), tuple(linears), name, inputs, scaler, provenance=facts)
    model = models.with_self_test(model, rng)
    data = encode_model(model)
    loaded = decode_model(data, "m")
    assert encode_model(loaded) == data
    assert loaded.scaler is not None
    assert loaded.scaler.mean.tobytes() == scaler.mean.tobytes()
    assert loaded.scaler.std.tobytes() == scaler.std.tobytes()
    assert loaded.provenance == facts


def test_equal_models_give_equal_bytes_whatever_the_order_of_their_facts() -> None:
    model = models.forecaster()
    turned = replace(model, provenance=dict(reversed(list(model.provenance.items()))))
    assert list(turned.provenance) != list(model.provenance)
    assert encode_model(model) == encode_model(turned)


def test_the_file_names_both_digests() -> None:
    model = models.forecaster()
    data = encode_model(model)
    length = struct.unpack("<Q", data[:8])[0]
    document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][KEY])
    assert document["digests"] == {"weights": weights_digest(model), "state": StateLayout(model).digest}
    assert document["format"] == 1


def test_no_host_user_or_path_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "a-folder-to-find"
    folder.mkdir()
    save(models.forecaster(), folder / "a-name-to-find.safetensors")
    content = (folder / "a-name-to-find.safetensors").read_bytes()
    for secret in (
        socket.gethostname(),
        getpass.getuser(),
        "a-folder-to-find",
        "a-name-to-find",
        os.sep + "tmp",
    ):
        assert secret.encode() not in content, secret


@pytest.mark.parametrize(
    "text",
    [
        "/home/somebody/data.csv",
        "from /srv/data/x",
        "~/data",
        r"C:\data",
        "file=/a/b",
        r"\\server\share",
        "D:/x",
    ],
)
def test_texts_with_a_path_are_refused(text: str) -> None:
    model = models.forecaster()
    for bad in (
        replace(model, provenance={"deep": [{"note": text}]}),
        replace(model, provenance={text: 1}),
        replace(model, name=text),
        replace(model, inputs=(Input("a", text), Input("b"))),
    ):
        with pytest.raises(ModelFileError, match="never holds a path"):
            encode_model(bad)


def test_a_channel_named_like_a_topic_is_no_path() -> None:
    names = (Input("/plant/pump/flow"), Input("b"))
    model = replace(models.forecaster(), inputs=names, provenance={"channels": ["/plant/pump/flow", "b"]})
    assert decode_model(encode_model(model), "m").inputs == names


@pytest.mark.parametrize(
    "text", ["m/s", "and/or", "1/min", "https://example.org/paper", "a: b", "kg/m/s²", "2024/05/01"]
)
def test_ordinary_texts_are_no_paths(text: str) -> None:
    model = replace(models.forecaster(), provenance={"note": text}, inputs=(Input("a", text), Input("b")))
    assert decode_model(encode_model(model), "m").provenance == {"note": text}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"x": float("nan")}, "finite"),
        ({"x": 2**64}, "64 bits"),
        ({"x": np.float32(1)}, "plain JSON"),
        ({"x": b"bytes"}, "plain JSON"),
        ({1: 2}, "text keys"),
        ({"x": "\ud800"}, "Unicode"),
    ],
)
def test_provenance_that_json_would_change_is_refused(facts, expected: str) -> None:
    with pytest.raises(ModelFileError, match=expected):
        encode_model(replace(models.forecaster(), provenance=facts))


def test_provenance_without_end_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(ModelFileError, match="deeper"):
        encode_model(replace(models.forecaster(), provenance={"x": endless}))


def test_a_description_over_the_header_limit_is_refused_when_saved(tmp_path: Path) -> None:
    model = replace(models.forecaster(), provenance={"x": "y" * 1_000_001})
    with pytest.raises(ModelFileError, match="1000000 bytes"):
        save(model, tmp_path / "m")
    assert not list(tmp_path.iterdir())


# --- the self-test ---


def test_a_wrong_recorded_output_refuses_the_file_and_names_it() -> None:
    model = models.forecaster()
    assert model.self_test is not None
    y = model.self_test.y.copy()
    y[7, 1] += 0.25
    data = encode_model(replace(model, self_test=SelfTest(model.self_test.x, y)))
    with pytest.raises(ModelFileError, match=r"pump\.st: self-test: step 7, output 1: .*deviation 0\.25"):
        decode_model(data, "pump.st")
    assert decode_model(data, "pump.st", self_test=False).name == "pump"


def test_the_self_test_takes_any_run_and_gives_the_largest_deviation() -> None:
    model = models.forecaster()
    assert model.self_test is not None
    deviation = check_self_test(model, Reference(model).run, "m")
    assert deviation is not None
    assert 0 <= deviation < 1e-6
    expected = model.self_test.y
    assert check_self_test(model, lambda _: expected + np.float32(5e-6), "m") == pytest.approx(5e-6, rel=0.2)
    with pytest.raises(ModelFileError, match="step 0, output 0"):
        check_self_test(model, lambda _: np.full_like(expected, np.nan), "m")
    assert check_self_test(replace(model, self_test=None), Reference(model).run, "m") is None


def test_an_endless_self_test_is_refused_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.forecaster()
    data = encode_model(model)
    monkeypatch.setattr(model_file, "MAX_TEST_STEPS", 8)
    with pytest.raises(ModelFileError, match="at most 8 steps"):
        encode_model(model)
    with pytest.raises(ModelFileError, match="at most 8 steps"):
        decode_model(data, "m")


# --- damage and lies ---


def drop(document, section):
    del document[section]
    return document


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: {**d, "format": 2}, "format 2, this version reads format 1"),
        (lambda d: {**d, "colour": "red"}, "unknown field `colour`"),
        (lambda d: {**d, "layers": []}, "at least one recurrent layer|expected 0 layers"),
        (lambda d: {**d, "head": d["head"][:1]}, r"expected float32 \(16, 4\)"),
        (lambda d: {**d, "digests": {**d["digests"], "weights": "0" * 64}}, "digest of the weights"),
        (lambda d: {**d, "digests": {**d["digests"], "state": "0" * 64}}, "digest of the state layout"),
        (lambda d: drop(d, "self_test"), "'self_test.x' is not part of the description"),
        (lambda d: drop(d, "inputs"), "missing required field `inputs`"),
        (lambda d: {**d, "self_test": {"steps": 17, "tolerance": 1e-5}}, r"expected float32 \(17"),
        (lambda d: {**d, "self_test": {"steps": 16, "tolerance": -1}}, "tolerance: expected > 0"),
        (lambda d: {**d, "rest_state": {"layers": 3}}, "rest_state: expected 2 layers"),
        (lambda d: {**d, "scaler": {"mean": [0, 0], "std": [1, 0]}}, "positive"),
        (lambda d: {**d, "inputs": [{"name": "a"}, {"name": "a"}]}, "distinct"),
        (lambda d: {**d, "detector": {**d["detector"], "speed": 1}}, "unknown field `speed`"),
        (lambda d: {**d, "activation_ranges": [1.0, -1.0]}, "activation_ranges"),
        (lambda d: {**d, "layers": [{**d["layers"][0], "cell": "tcn"}, d["layers"][1]]}, "tcn"),
        (lambda d: json.dumps(d).replace('"name": "pump"', '"name": "pump", "name": "pump"'), "comes twice"),
        (lambda d: json.dumps(d)[:-1], "model description"),
        (lambda _: "[" * 100_000, "model description"),
        (lambda _: "", "model description"),
    ],
)  # fmt: skip
def test_a_description_that_does_not_fit_is_refused_in_one_line(change, expected: str) -> None:
    data = edited(encode_model(models.forecaster()), change)
    with pytest.raises(ModelFileError, match=expected) as caught:
        decode_model(data, "pump.st")
    assert str(caught.value).startswith("pump.st: ")
    assert "\n" not in str(caught.value)


def test_changed_weights_are_noticed() -> None:
    data = bytearray(encode_model(models.forecaster()))
    data[-2] ^= 1
    with pytest.raises(ModelFileError, match=r"digest of the weights|self-test|rest"):
        decode_model(bytes(data), "m")


# --- writing ---


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "m.safetensors"
    save(models.forecaster(1), target)
    before = target.read_bytes()

    def broken(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(ModelFileError, match="No space left on device"):
        save(models.forecaster(2), target)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


@pytest.mark.parametrize("path", ["", "no/such/folder/m", "."])
def test_a_place_that_cannot_be_written_is_one_error(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match="cannot be written"):
        save(models.forecaster(), path)


# --- the written description ---


def test_the_format_document_names_every_key_opcode_and_global() -> None:
    """FORMAT.md is for people who write another reader; what it leaves out would be a secret."""
    text = (Path(model_file.__file__).parents[1] / "FORMAT.md").read_text()
    sections = [
        value for value in vars(model_document).values()
        if isinstance(value, type) and issubclass(value, model_document.Section)
    ]  # fmt: skip
    assert len(sections) == 9
    for section in sections:
        for field in section.__struct_fields__:
            assert f"`{field}`" in text or f'"{field}"' in text, field
    for field in DetectorSpec.__struct_fields__:
        assert field in text, field
    for tensor in model_file._tensors_of(models.forecaster()):
        assert re.sub(r"[0-9]+", "<i>", tensor) in text, tensor
    for word in (*torch_pickle._VALUES, *torch_pickle._CONSTANTS, "STACK_GLOBAL", "BINPERSID"):
        assert word in text, word
    for called in torch_pickle._ALLOWED_CALLS:
        assert called.removeprefix("torch._utils.") in text, called
    for kind in torch_pickle.STORAGES:
        assert kind.removesuffix("Storage") in text, kind
    for dtype in ITEM_SIZES:
        assert dtype in text, dtype
