"""A training that was interrupted goes on where it was: the same weights as without the interruption.

A checkpoint is one safetensors file: the network's weights now and at their best, Adam's moments, the state
of the random generator, and the losses so far. It carries a checksum, and a fingerprint of the rows, the
recipe and PyTorch's version, and is taken up only by a training of the same. It is written beside its place
and renamed, at most every `EVERY_S` seconds, and removed when the training is done. Nothing in it is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from edge_rnn.errors import DataError
from edge_rnn.training.extra import torch

EVERY_S = 10.0
_KEY = "training"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def fingerprint(recipe: Any, *arrays: Sequence[np.ndarray[Any, Any]]) -> str:
    """A digest of everything that decides the weights: recipe, rows, PyTorch's version."""
    digest = hashlib.sha256(json.dumps(asdict(recipe), sort_keys=True).encode())
    digest.update(str(torch.__version__).encode())
    for group in arrays:
        for array in group:
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _checksum(tensors: Any, facts: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()


class Checkpoint:
    """The file of one training.

    Args:
        path: where; its folder exists.
        clock: seconds, for tests.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._written = clock()
        self.mark = ""

    def begin(self, mark: str) -> None:
        """Say which training this is, see `fingerprint`."""
        self.mark = mark

    def due(self) -> bool:
        """Whether it is time to write again."""
        return self._clock() - self._written >= EVERY_S

    def write(
        self, network: Any, optimizer: Any, generator: Any, best: dict[str, Any], facts: dict[str, Any]
    ) -> None:
        """Keep the training as it is after an epoch.

        Raises:
            DataError: the file cannot be written.
        """
        from edge_rnn.files.safetensors_file import write_tensors

        tensors = {"generator": generator.get_state().numpy()}
        for name, value in network.state_dict().items():
            tensors[f"now.{name}"] = value.detach().numpy()
            tensors[f"best.{name}"] = best[name].detach().numpy()
        for number, parameter in enumerate(network.parameters()):
            state = optimizer.state[parameter]
            for name in _MOMENTS:
                # A scalar is no tensor of some readers.
                tensors[f"adam.{number}.{name}"] = np.atleast_1d(state[name].detach().numpy())
        facts = {"mark": self.mark, **facts}
        document = json.dumps({"sum": _checksum(tensors, facts), **facts}, sort_keys=True)
        data = write_tensors(tensors, {_KEY: document})
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(data)
            temporary.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise DataError(f"{self.path}: the checkpoint cannot be written: {error.strerror}") from None
        self._written = self._clock()

    def read(
        self, network: Any, optimizer: Any, generator: Any
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Bring a training to where it was; its best weights and facts, or None if there is no checkpoint.

        Raises:
            DataError: the file is damaged, or of another training.
        """
        from edge_rnn.errors import ModelFileError
        from edge_rnn.files.safetensors_file import read_tensors

        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{self.path}: the checkpoint cannot be read: {error.strerror}") from None
        remedy = "remove it to begin anew"
        try:
            tensors, metadata = read_tensors(data, self.path.name)
            facts: dict[str, Any] = json.loads(metadata[_KEY])
            if facts.pop("sum") != _checksum(tensors, facts):
                raise ValueError("its checksum is wrong")
            other = facts.pop("mark") != self.mark
        except (ModelFileError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{self.path}: not a checkpoint that can be read ({error}); {remedy}") from None
        if other:
            raise DataError(
                f"{self.path}: a checkpoint of another training (other rows, recipe or PyTorch); {remedy}"
            )
        try:
            best = self._restore(tensors, network, optimizer, generator)
        except (KeyError, RuntimeError, TypeError) as error:
            raise DataError(f"{self.path}: the checkpoint is incomplete ({error}); {remedy}") from None
        return best, facts

    @staticmethod
    def _restore(tensors: Any, network: Any, optimizer: Any, generator: Any) -> dict[str, Any]:
        def tensor(name: str) -> Any:
            return torch.from_numpy(np.array(tensors[name]))

        network.load_state_dict({name: tensor(f"now.{name}") for name in network.state_dict()})
        best = {name: tensor(f"best.{name}") for name in network.state_dict()}
        for number, parameter in enumerate(network.parameters()):
            optimizer.state[parameter] = {
                name: tensor(f"adam.{number}.{name}").reshape(() if name == "step" else parameter.shape)
                for name in _MOMENTS
            }
        generator.set_state(tensor("generator"))
        return best

    def done(self) -> None:
        """The training is over: the file goes."""
        self.path.unlink(missing_ok=True)
