"""Files made to do harm: refused in one line, nothing executed, memory and time bounded."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from edge_rnn.errors import ModelFileError
from edge_rnn.files.load import decode
from edge_rnn.files.safetensors_file import read_tensors
from edge_rnn.files.torch_file import read_torch
from tests.support import hostile_files
from tests.support import torch_files as tf
from tests.support.hostile_files import CANARY, SAFETENSORS, TORCH, Call
from tests.support.need import ROOT

MEGABYTE = 1 << 20


def test_there_are_enough_of_them() -> None:
    assert len(TORCH) >= 27
    assert len(SAFETENSORS) >= 27


def check_refused(data: bytes, expected: str, read) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError, match=expected) as caught:
            read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith("evil.pt: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert peak < 32 * MEGABYTE, peak


@pytest.mark.parametrize("kind", TORCH)
def test_a_hostile_torch_file_is_refused_and_costs_little(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, expected = TORCH[kind]
    check_refused(make(), expected, lambda data: decode(data, "evil.pt", allow_legacy=True))
    assert not (tmp_path / CANARY).exists()


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_a_hostile_safetensors_file_is_refused_and_costs_little(kind: str) -> None:
    make, expected = SAFETENSORS[kind]
    data = make()
    check_refused(data, expected, lambda data: read_tensors(data, "evil.pt"))
    with pytest.raises(ModelFileError):
        decode(data, "evil.pt")


def test_the_canary_would_sing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls in these files are real: the standard unpickler makes them."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Call(os.system, f"touch {CANARY}"), 2))
    assert (tmp_path / CANARY).exists()


def test_good_files_beside_them_load() -> None:
    arrays = tf.small_arrays()
    assert decode(tf.torch_file(arrays), "good.pt").layers[0].cell == "gru"
    header, data = {}, b""
    for name, array in arrays.items():
        header[name] = {
            "dtype": "F32", "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes],
        }  # fmt: skip
        data += array.tobytes()
    assert decode(hostile_files.safetensors(header, data), "good.safetensors").layers[0].cell == "gru"


def test_many_small_views_of_one_large_storage_are_cheap() -> None:
    """2,000 tensors on one storage of 8 MB: it is read once, and no view widens more than it needs."""
    count = 4 << 20
    view = {f"t{i}": tf.tensor("0", (2,), (1,), count=count, kind="BFloat16Storage") for i in range(2000)}
    data = tf.archive(tf.PROTOCOL + tf.dictionary(view) + tf.STOP, {"0": bytes(2 * count)})
    tracemalloc.start()
    try:
        assert len(read_torch(data, "m")) == 2000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 48 * MEGABYTE


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    resource.setrlimit(resource.RLIMIT_DATA, (768 * MEGABYTE, 768 * MEGABYTE))


ALL = """
import warnings
warnings.simplefilter("ignore")
from edge_rnn.errors import ModelFileError
from edge_rnn.files.load import decode
from tests.support import hostile_files
refused = 0
for table in (hostile_files.TORCH, hostile_files.SAFETENSORS):
    for make, _ in table.values():
        try:
            decode(make(), "evil", allow_legacy=True)
        except ModelFileError:
            refused += 1
print(refused)
"""


def test_all_of_them_together_stay_within_limits_of_memory_and_time(tmp_path: Path) -> None:
    """The operating system ends the process past 60 s of CPU or 768 MB of data: one bomb would do it."""
    done = subprocess.run(
        [sys.executable, "-c", ALL],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=_limit,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(TORCH) + len(SAFETENSORS)
    assert not (tmp_path / CANARY).exists()
