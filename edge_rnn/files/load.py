"""`edge_rnn.load`: any file that holds a model or its weights, to a `Model`.

The kind of a file is told by its content, never by its suffix:

    `{` after 8 bytes      safetensors: our model file where its metadata says so, else plain tensors
    PK, 0x80, ustar        a PyTorch file (zip, old format, tar), read without torch and without unpickling

Plain tensors become a `Model` by their names and shapes (`state_dict.py`). A model file that carries recorded
steps is replayed with the float64 reference before it is handed out.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from edge_rnn.core.model import Model
from edge_rnn.errors import ModelFileError, printable
from edge_rnn.files.model_file import decode_model, is_model_file
from edge_rnn.files.safetensors_file import looks_like_safetensors, read_tensors

if TYPE_CHECKING:
    from edge_rnn.files.state_dict import Choices

MAX_BYTES = 64 << 20
# As in the safetensors library.
_LONGEST_HEADER = 100_000_000

_OTHERS = (
    (b"\x89HDF", "an HDF5 file (Keras?)"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x93NUMPY", "a NumPy array: only named tensors are read"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
    (b"<", "a web page or XML: the download went wrong"),
)


def read_file(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file of at most `max_bytes`.

    Raises:
        ModelFileError: missing, not readable, a folder or device, empty or too large.
    """
    where = printable(os.fspath(path))
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelFileError(f"{where}: cannot be read: {reason}; check the path") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ModelFileError(f"{where}: {what}, expected a model file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ModelFileError(f"{where}: cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)
    if len(data) > max_bytes:
        raise ModelFileError(
            f"{where}: {status.st_size} bytes, more than the limit of {max_bytes}; "
            "raise it with --max-bytes or max_bytes=... if the file is what you mean"
        )
    if not data:
        raise ModelFileError(f"{where}: the file is empty; copy or write it again")
    return data


def decode(
    data: bytes,
    where: str,
    *,
    allow_legacy: bool = False,
    key: str | None = None,
    self_test: bool = True,
    **choices: Unpack[Choices],
) -> Model:
    """The model in the bytes of any supported file; arguments and errors as `load`."""
    if looks_like_safetensors(data) and is_model_file(data, where):
        given = [name for name, value in choices.items() if value] + (["key"] if key else [])
        if given:
            raise ModelFileError(
                f"{where}: a model file already, which says for itself what {given[0]!r} would; leave it out"
            )
        return decode_model(data, where, self_test=self_test)
    # What reads PyTorch's files is not small, and a daemon has a model file.
    from edge_rnn.files.state_dict import load_state_dict
    from edge_rnn.files.torch_file import looks_like_torch, read_torch

    if looks_like_safetensors(data):
        if key is not None:
            raise ModelFileError(f"{where}: key: a safetensors file has no dicts inside; leave it out")
        tensors, _ = read_tensors(data, where)
    elif looks_like_torch(data):
        tensors = read_torch(data, where, allow_legacy=allow_legacy, key=key)
    elif len(data) > 8 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= _LONGEST_HEADER:
        raise ModelFileError(
            f"{where}: cut short: {len(data)} bytes, its header alone has "
            f"{8 + int.from_bytes(data[:8], 'little')}; copy or write it again"
        )
    elif where.lower().endswith(".toml"):
        raise ModelFileError(f"{where}: this is a configuration; expected a model file, which it names")
    else:
        found = next((text for start, text in _OTHERS if data.startswith(start)), None)
        raise ModelFileError(
            f"{where}: not a model file"
            + (f" but {found}" if found else f" (starts with {data[:4]!r})")
            + "; "
            "expected a .safetensors or a .pt written by torch.save(model.state_dict(), ...)"
        )
    choices.setdefault("name", Path(where).stem or "model")
    return load_state_dict(tensors, where=where, **choices)


def load(
    path: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
    allow_legacy: bool = False,
    key: str | None = None,
    self_test: bool = True,
    **choices: Unpack[Choices],
) -> Model:
    """Read a model: our model file, a plain safetensors file, or a PyTorch state dict (`.pt`, `.pth`).

    Args:
        path: the file; its suffix does not matter.
        max_bytes: refuse larger files before parsing.
        allow_legacy: read the old torch format, which has no checksums, with a `LegacyFormatWarning`.
        key: which dict of a checkpoint, with dots for nested ones, where several fit.
        self_test: replay a model file's recorded steps (float64 reference).
        **choices: what plain tensors cannot say (cell, head, recurrent, inputs, ignore, name), as in
            `load_state_dict`; not for a model file.

    Raises:
        ModelFileError: one line: the file, what was expected, what was found, what to do.
    """
    data = read_file(path, max_bytes)
    return decode(
        data, printable(os.fspath(path)), allow_legacy=allow_legacy, key=key, self_test=self_test, **choices
    )
