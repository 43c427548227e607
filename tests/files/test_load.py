"""`edge_rnn.load`: any supported file by its content, and one clear line for everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import edge_rnn
from edge_rnn.errors import ModelFileError
from edge_rnn.files.torch_file import LegacyFormatWarning
from tests.support import models
from tests.support import torch_files as tf


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "net.bin", "net"])
def test_the_content_counts_and_not_the_suffix(name: str, tmp_path: Path) -> None:
    arrays = tf.small_arrays()
    path = tmp_path / name
    path.write_bytes(tf.torch_file(arrays))
    model = edge_rnn.load(path)
    assert (model.layers[0].cell, model.name) == ("gru", "net")
    path.write_bytes(safetensors.numpy.save(arrays))
    plain = edge_rnn.load(str(path))
    assert np.array_equal(plain.layers[0].w_hh, model.layers[0].w_hh)
    edge_rnn.save(models.forecaster(), path)
    assert edge_rnn.load(path).name == "pump"


def test_what_weights_leave_open_is_an_argument(tmp_path: Path) -> None:
    arrays = {
        k.replace("gru", "rnn"): (v[:2] if k.startswith("gru") else v) for k, v in tf.small_arrays().items()
    }
    (tmp_path / "m.pt").write_bytes(tf.torch_file(arrays))
    model = edge_rnn.load(
        tmp_path / "m.pt", cell="rnn_relu", head=[("fc", "sigmoid")], inputs=["a", "b"], name="other"
    )
    assert model.layers[0].cell == "rnn_relu"
    assert model.head[0].activation == "sigmoid"
    assert [i.name for i in model.inputs] == ["a", "b"]
    assert model.name == "other"


def test_a_model_file_takes_no_such_argument(tmp_path: Path) -> None:
    edge_rnn.save(models.forecaster(), tmp_path / "m")
    with pytest.raises(ModelFileError, match="a model file already, which says for itself what 'cell' would"):
        edge_rnn.load(tmp_path / "m", cell="lstm")
    with pytest.raises(ModelFileError, match="'key'"):
        edge_rnn.load(tmp_path / "m", key="model")
    assert edge_rnn.load(tmp_path / "m", cell=None, ignore=[]).name == "pump"


def test_the_old_format_only_on_request_and_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(tf.legacy_arrays(tf.small_arrays()))
    with pytest.raises(ModelFileError, match="--allow-legacy"):
        edge_rnn.load(tmp_path / "m.pt")
    with pytest.warns(LegacyFormatWarning):
        assert edge_rnn.load(tmp_path / "m.pt", allow_legacy=True).layers[0].cell == "gru"


def test_the_size_limit_comes_before_parsing(tmp_path: Path) -> None:
    data = tf.torch_file(tf.small_arrays())
    (tmp_path / "m.pt").write_bytes(data)
    with pytest.raises(ModelFileError, match=rf"{len(data)} bytes, more than the limit of 100.*max_bytes"):
        edge_rnn.load(tmp_path / "m.pt", max_bytes=100)
    assert edge_rnn.load(tmp_path / "m.pt", max_bytes=len(data))
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelFileError, match="more than the limit of 67108864"):
        edge_rnn.load(tmp_path / "sparse")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"hello\n" * 100, r"not a model file \(starts with b'hell'\)"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
        (b"\x1f\x8b" + bytes(99), "gzip archive: unpack it first"),
        (b"\x93NUMPY" + bytes(99), "NumPy array"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "the download went wrong"),
        (b"\0", "not a model file"),
        (bytes(4096), "not a model file"),
        (b"\xff" * 4096, "not a model file"),
        (b"PK\x03\x04", "cut short"),
        (b"H\x10\0\0\0\0\0\0{" + b" " * 991, "cut short: 1000 bytes, its header alone has 4176; copy"),
        (b"\x80\x02", "not a model file"),
    ],
)
def test_other_files_are_refused_in_one_line(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=expected) as caught:
        edge_rnn.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).isprintable()


def test_places_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="No such file or directory; check the path"):
        edge_rnn.load(tmp_path / "missing.pt")
    with pytest.raises(ModelFileError, match="a folder, expected a model file"):
        edge_rnn.load(tmp_path)
    with pytest.raises(ModelFileError, match="cannot be read"):
        edge_rnn.load("with\0nul")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="not a regular file"):
        edge_rnn.load(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="not a regular file"):
        edge_rnn.load("/dev/zero")


def test_a_name_that_cannot_be_printed_does_not_break_the_line(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        edge_rnn.load(tmp_path / "two\nlines\x1b[31m")
    assert str(caught.value).isprintable()


def test_loading_needs_neither_torch_nor_numba_nor_pickle_load(tmp_path: Path) -> None:
    """On the device torch is absent; and an inspection should not compile anything."""
    (tmp_path / "m.pt").write_bytes(tf.torch_file(tf.small_arrays()))
    edge_rnn.save(models.forecaster(), tmp_path / "m.safetensors")
    code = """
import pickle, sys, edge_rnn
def never(*_, **__): raise AssertionError("unpickled")
pickle.load = pickle.loads = pickle.Unpickler = never
sys.modules["torch"] = None
edge_rnn.load("m.pt"); edge_rnn.load("m.safetensors")
print([m for m in ("numba", "paho", "rich", "matplotlib") if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[]\n", done.stderr
