"""A `.pt` file's bytes to tensors: without torch, and without running the pickle inside.

Two containers, told apart by their first bytes:

    zip      `<name>/data.pkl` and one entry `<name>/data/<key>` per storage, all stored uncompressed, each
             with a CRC-32. What torch has written since 1.6.
    legacy   five pickles in a row (magic, protocol 1001, system facts, the object, the list of storage keys),
             then per storage an int64 count and the raw bytes. No checksum: a flipped bit goes unseen, so it
             is read on request only, with a warning.

`torch_pickle` interprets the object, `torch_checkpoint` chooses the dict of tensors in it.

Nothing is copied before all sizes are known: storages must exist in the file with at least the bytes they
claim, every tensor must lie within its storage, and all tensors together must not take more than twice the
file's size (four times for half precision), or a file of a few kilobytes could ask for gigabytes.
"""

from __future__ import annotations

import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from math import prod

import numpy as np

from edge_rnn.errors import ModelFileError, printable
from edge_rnn.files.safetensors_file import Array, Tensors, bfloat16_to_float32, require_finite
from edge_rnn.files.torch_checkpoint import choose
from edge_rnn.files.torch_pickle import Machine, Storage, View, save_line

MAX_PICKLE = 1 << 20
MAX_ENTRIES = 4096
MAX_DIRECTORY = 1 << 20
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_EMPTY = 2**40

Fetch = Callable[[Storage], memoryview]


class LegacyFormatWarning(UserWarning):
    """A file of the old torch format was read: damage in it cannot be noticed."""


def looks_like_torch(data: bytes) -> bool:
    """Whether `data` starts like a zip archive, a pickle, or a tar archive of the oldest torch."""
    return data[:4] == b"PK\x03\x04" or is_pickle(data) or data[257:262] == b"ustar"


def is_pickle(data: bytes) -> bool:
    """Whether `data` starts like a pickle of protocol 2 to 5."""
    return len(data) > 2 and data[0] == 0x80 and 2 <= data[1] <= 5


def read_torch(data: bytes, where: str, *, allow_legacy: bool = False, key: str | None = None) -> Tensors:
    """The tensors of a `.pt` file's bytes, as float (bfloat16 widened to float32) or integer arrays.

    Args:
        data: the whole file.
        where: what messages call the file.
        allow_legacy: read the format without checksums too, with a `LegacyFormatWarning`.
        key: which dict of a checkpoint to read, with dots for nested ones; default: the only fitting one.

    Raises:
        ModelFileError: another kind of file, damaged, hostile, over a limit, or ambiguous.
    """
    if data[:4] == b"PK\x03\x04":
        value, fetch = _open_zip(data, where)
    elif data[257:262] == b"ustar":
        raise ModelFileError(
            f"{where}: the tar format of torch before 0.1.10 (2017). "
            f"Load it with a newer torch and save it again: {save_line(where)}"
        )
    elif is_pickle(data):
        value, fetch = _open_legacy(data, where, allow_legacy=allow_legacy)
    else:
        raise ModelFileError(f"{where}: not a PyTorch file (starts with {data[:4]!r})")
    views = choose(value, key, where)
    _check_total(views, len(data), where)
    tensors = {name: _materialise(name, view, fetch, where) for name, view in views.items()}
    for name, tensor in tensors.items():
        require_finite(tensor, name, where)
    return tensors


# --- zip -------------------------------------------------------------------------------------------------


def _check_directory(data: bytes, where: str) -> None:
    """Bound the archive's directory before `zipfile` turns it into objects."""
    end = len(data) - 22
    if end < 0 or data[end : end + 4] != b"PK\x05\x06" or data[end + 20 :] != b"\0\0":
        raise ModelFileError(
            f"{where}: a zip archive without its end, or with something appended; "
            "the file is cut short or damaged"
        )
    sizes = [struct.unpack_from("<HHI", data, end + 8)[1:]]
    if end >= 76 and data[end - 20 : end - 16] == b"PK\x06\x07":
        sizes.append(struct.unpack_from("<QQ", data, end - 76 + 32))
    for entries, size in sizes:
        # 0xFFFF and 0xFFFFFFFF say "see the 64-bit record".
        if (entries > MAX_ENTRIES and entries != 0xFFFF) or (size > MAX_DIRECTORY and size != 0xFFFFFFFF):
            raise ModelFileError(f"{where}: more than {MAX_ENTRIES} zip entries; not a file of weights")
    if len(sizes) == 1 and 0xFFFFFFFF in sizes[0]:
        raise ModelFileError(f"{where}: a zip archive with a broken directory; the file is damaged")


def _check_entries(infos: list[zipfile.ZipInfo], data: bytes, where: str) -> None:
    if len(infos) > MAX_ENTRIES:
        raise ModelFileError(f"{where}: more than {MAX_ENTRIES} zip entries; not a file of weights")
    if len({info.filename for info in infos}) != len(infos):
        raise ModelFileError(f"{where}: a zip entry comes twice; the file is damaged or hostile")
    end = 0
    for info in sorted(infos, key=lambda i: i.header_offset):
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ModelFileError(
                f"{where}: compressed zip entry {info.filename[:80]!r}: torch.save never writes one; "
                f"write it again: {save_line(where)}"
            )
        if info.flag_bits & 0x41:
            raise ModelFileError(f"{where}: encrypted zip entry {info.filename[:80]!r}; write it without")
        begin = info.header_offset
        lengths = data[begin + 26 : begin + 30]
        if begin < end or len(lengths) < 4:
            raise ModelFileError(f"{where}: zip entries overlap; the file is damaged or hostile")
        end = begin + 30 + sum(struct.unpack("<HH", lengths)) + info.file_size
        if end > len(data):
            raise ModelFileError(f"{where}: zip entry {info.filename[:80]!r} reaches beyond the file's end")


def _refuse_other_archives(names: set[str], where: str) -> None:
    """Name the archives torch and others write that are no dict of tensors."""
    inner = {name.partition("/")[2] for name in names}
    if "archive_format" in names | inner or any(n.startswith("models/") for n in inner | names):
        raise ModelFileError(
            f"{where}: a torch.export archive (.pt2). "
            f"Save the weights of the original module: {save_line(where)}"
        )
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        name = where.replace("\\", "/").rpartition("/")[2]
        stem, dot, suffix = name.rpartition(".")
        plain = f"{stem}_sd{dot}{suffix}" if dot else f"{name}_sd.pt"
        raise ModelFileError(
            f"{where}: TorchScript archive. In Python: "
            f'torch.save(torch.jit.load("{name}").state_dict(), "{plain}")'
        )


def _open_zip(data: bytes, where: str) -> tuple[object, Fetch]:
    _check_directory(data, where)
    damaged = (
        zipfile.BadZipFile, ValueError, RuntimeError, NotImplementedError, OSError, EOFError, KeyError,
        IndexError, struct.error, OverflowError,
    )  # fmt: skip
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except damaged as error:
        raise ModelFileError(
            f"{where}: not a readable zip archive: {printable(str(error))}; the file is damaged"
        ) from None
    infos = archive.infolist()
    names = {info.filename for info in infos}
    _refuse_other_archives(names, where)
    _check_entries(infos, data, where)

    def read(name: str) -> bytes:
        try:
            return archive.read(name)  # checks the CRC
        except damaged as error:
            raise ModelFileError(
                f"{where}: zip entry {name[:80]!r}: {printable(str(error))}; the file is damaged"
            ) from None

    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ModelFileError(
            f"{where}: a zip archive, but not a PyTorch file: no single <name>/data.pkl in it; "
            f"in Python: {save_line(where)}"
        )
    prefix = pickles[0].removesuffix("data.pkl")
    if prefix + "byteorder" in names and read(prefix + "byteorder") != b"little":
        raise ModelFileError(f"{where}: written by a big-endian machine; write it again on a usual one")
    if archive.getinfo(pickles[0]).file_size > MAX_PICKLE:
        raise ModelFileError(f"{where}: {pickles[0]!r} is over {MAX_PICKLE} bytes; not a file of weights")
    value = Machine(where).run(BytesIO(read(pickles[0])))
    # Kept, because a thousand tensors may look into one storage; together they are no larger than the file.
    contents: dict[str, bytes] = {}

    def fetch(storage: Storage) -> memoryview:
        name = f"{prefix}data/{storage.key}"
        if not storage.key.isalnum() or name not in names:
            raise ModelFileError(f"{where}: storage {storage.key[:40]!r} is missing; the file is damaged")
        content = contents[name] if name in contents else contents.setdefault(name, read(name))
        size = storage.count * storage.item_size
        if len(content) < size:
            raise ModelFileError(
                f"{where}: storage {storage.key!r}: {size} bytes needed, {len(content)} there; "
                "the file is damaged"
            )
        return memoryview(content)[:size]

    return value, fetch


# --- legacy ----------------------------------------------------------------------------------------------


def _open_legacy(data: bytes, where: str, *, allow_legacy: bool) -> tuple[object, Fetch]:
    # The five pickles come first and are small; the storages after them are never given to the decoder.
    stream = BytesIO(data[:MAX_PICKLE])
    try:
        magic = Machine(where, tensors_expected=False).run(stream)
    except ModelFileError as error:
        raise ModelFileError(f"{error} (a bare pickle, not a file of torch.save)") from None
    if magic != _MAGIC:
        raise ModelFileError(
            f"{where}: a bare pickle, not a file of torch.save; nothing was executed. "
            f"In Python: {save_line(where)}"
        )
    protocol = Machine(where, tensors_expected=False).run(stream)
    facts = Machine(where, tensors_expected=False).run(stream)
    if protocol != _PROTOCOL or not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise ModelFileError(
            f"{where}: an unknown variant of the old torch format; write it again: {save_line(where)}"
        )
    machine = Machine(where)
    value = machine.run(stream)
    keys = Machine(where, tensors_expected=False).run(stream)
    if not allow_legacy:
        raise ModelFileError(
            f"{where}: old torch format without a checksum; damage would go unseen. "
            "Save it again, or pass --allow-legacy (allow_legacy=True)"
        )
    places = _legacy_places(data, stream.tell(), keys, machine.storages, where)
    warnings.warn(
        f"{where}: old torch format without a checksum: damage in it cannot be noticed",
        LegacyFormatWarning,
        stacklevel=5,
    )

    def fetch(storage: Storage) -> memoryview:
        if storage.key not in places:
            raise ModelFileError(f"{where}: storage {storage.key[:40]!r} is missing; the file is damaged")
        return places[storage.key]

    return value, fetch


def _legacy_places(
    data: bytes, at: int, keys: object, storages: Mapping[str, Storage], where: str
) -> dict[str, memoryview]:
    """Where each storage's bytes are: an int64 count, then the bytes, in the order of `keys`."""
    if (
        not isinstance(keys, list)
        or not all(type(key) is str for key in keys)
        or sorted(keys) != sorted(storages)
    ):
        raise ModelFileError(f"{where}: the list of storages does not fit its tensors; the file is damaged")
    places = {}
    for key in keys:
        storage = storages[key]
        begin, end = at + 8, at + 8 + storage.count * storage.item_size
        if end > len(data):
            raise ModelFileError(f"{where}: storage {key[:40]!r} is cut short; the file is damaged")
        (count,) = struct.unpack_from("<q", data, at)
        if count != storage.count:
            raise ModelFileError(
                f"{where}: storage {key[:40]!r}: {count} elements there, {storage.count} expected; "
                "the file is damaged"
            )
        places[key] = memoryview(data)[begin:end]
        at = end
    if at != len(data):
        raise ModelFileError(f"{where}: {len(data) - at} bytes after the last storage; the file is damaged")
    return places


# --- tensors ----------------------------------------------------------------------------------------------


def _check_total(views: Mapping[str, View], file_size: int, where: str) -> None:
    narrow = all(view.storage.item_size == 2 for view in views.values())
    total = sum(
        view.count * (4 if view.storage.dtype == "bfloat16" else view.storage.item_size)
        for view in views.values()
    )
    allowed = file_size * (4 if narrow else 2)
    if total > allowed:
        raise ModelFileError(
            f"{where}: its tensors would take {total} bytes, {total // file_size} times the file's size; "
            "damaged or hostile file"
        )


def _materialise(name: str, view: View, fetch: Fetch, where: str) -> Array:
    """Copy one tensor out of its storage."""
    storage = view.storage
    strides = zip(view.size, view.stride, strict=True)
    last = view.offset + sum((n - 1) * stride for n, stride in strides) if view.count else view.offset - 1
    if last >= storage.count:
        raise ModelFileError(
            f"{where}: tensor {name!r} reaches element {last} of a storage of {storage.count}: "
            "damaged or hostile file"
        )
    if not view.count:
        if prod(max(n, 1) for n in view.size) > _MAX_EMPTY:
            raise ModelFileError(f"{where}: tensor {name!r} has shape {view.size}: damaged or hostile file")
        return np.zeros(view.size, np.float32)
    # The elements are picked before anything is widened: a storage may be far larger than this tensor.
    raw = "<u2" if storage.dtype == "bfloat16" else "u1" if storage.dtype == "?" else storage.dtype
    flat = np.frombuffer(fetch(storage), raw)
    # A dimension of one element never moves, and its stride may be any number.
    strides_in_bytes = tuple(
        stride * storage.item_size if n > 1 else 0 for n, stride in zip(view.size, view.stride, strict=True)
    )
    picked = np.lib.stride_tricks.as_strided(
        flat[view.offset :], view.size, strides_in_bytes, writeable=False
    ).copy()
    if storage.dtype == "bfloat16":
        return bfloat16_to_float32(picked)
    return picked != 0 if storage.dtype == "?" else picked
