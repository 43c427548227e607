"""The pickle inside a PyTorch file, interpreted by ourselves: nothing in it is imported or called.

A pickle is a program of one-byte opcodes for a small stack machine; `pickle.load` runs it, and it may call
any function it names. `pickletools.genops` only decodes it. This module interprets the opcodes that
`torch.save` writes for dicts of tensors, and refuses every other one with its name and position. A `GLOBAL`
becomes an inert `Name` that is compared with a short table:

    torch._utils._rebuild_tensor_v2, _rebuild_tensor    a `View` of a storage: nothing is allocated
    torch._utils._rebuild_parameter                     its first argument
    collections.OrderedDict                             an empty dict
    torch.Size, torch.device                            a tuple, a text
    torch.<kind>Storage                                 a storage's data type

Because a tensor stays a description until the whole pickle is understood, a small file that claims large
storages, or many tensors on one storage, costs nothing: `torch_file` sums the sizes before it copies a byte.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import TypeGuard

from edge_rnn.errors import ModelFileError

MAX_OPERATIONS = 100_000
MAX_TENSORS = 2048
MAX_DIMENSIONS = 4
#: name of a storage class in the module `torch` -> (numpy data type, bytes of one element)
STORAGES = {
    "FloatStorage": ("<f4", 4), "DoubleStorage": ("<f8", 8), "HalfStorage": ("<f2", 2),
    "BFloat16Storage": ("bfloat16", 2), "LongStorage": ("<i8", 8), "IntStorage": ("<i4", 4),
    "ShortStorage": ("<i2", 2), "CharStorage": ("i1", 1), "ByteStorage": ("u1", 1), "BoolStorage": ("?", 1),
}  # fmt: skip


class Name(str):
    """A global's dotted name; only ever compared."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Storage:
    """A flat buffer the file claims to hold: key, numpy data type (or `bfloat16`), elements, bytes each."""

    key: str
    dtype: str
    count: int
    item_size: int


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A tensor: which elements of which storage; checked against the storage's claimed size."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements."""
        return prod(self.size)


class _Mark:
    """The stack's mark."""


_MARK = _Mark()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
_ALLOWED_CALLS = {
    "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor", "torch._utils._rebuild_parameter",
    "collections.OrderedDict", "torch.Size", "torch.device",
}  # fmt: skip


def is_count(value: object) -> TypeGuard[int]:
    """Whether `value` is a plain int >= 0; a bool is not."""
    return type(value) is int and value >= 0


def _is_counts(value: object) -> TypeGuard[tuple[int, ...]]:
    return type(value) is tuple and len(value) <= MAX_DIMENSIONS and all(is_count(n) for n in value)


class Machine:
    """The stack machine for one pickle.

    Args:
        where: what messages call the file.
        tensors_expected: False for the small pickles around a legacy file's object, which hold no storages.
    """

    def __init__(self, where: str, *, tensors_expected: bool = True) -> None:
        self._where = where
        self._tensors_expected = tensors_expected
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}
        self._position = 0
        self._views = 0
        self._dropped: list[object] = []
        self.storages: dict[str, Storage] = {}
        containers: dict[str, Callable[[], object]] = {
            "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
        }  # fmt: skip
        self._containers = containers

    def run(self, stream: BytesIO) -> object:
        """Interpret one pickle from `stream`, leave the stream behind its end, and return its value.

        Raises:
            ModelFileError: an opcode, name or value that a file of tensors does not need.
        """
        try:
            for count, (opcode, argument, position) in enumerate(pickletools.genops(stream)):
                if count >= MAX_OPERATIONS:
                    raise self._error(f"more than {MAX_OPERATIONS} pickle operations; not a file of weights")
                self._position = position or 0
                if opcode.name == "STOP":
                    return self._end()
                self._step(opcode.name, argument)
        except (ValueError, OverflowError) as error:  # genops: unknown opcode, cut short, bad text
            raise self._error(f"damaged pickle: {error}") from None
        raise self._error("the pickle has no end; the file is damaged")

    def _error(self, text: str) -> ModelFileError:
        return ModelFileError(f"{self._where}: {text}")

    def _damaged(self, what: str) -> ModelFileError:
        return self._error(f"{what} at byte {self._position} of the pickle; the file is damaged or hostile")

    def _end(self) -> object:
        value = self._pop()
        if self._stack:
            raise self._damaged("values left on the stack")
        if holds_view(self._dropped, set()):
            raise self._damaged("a tensor hidden in the metadata")
        return value

    def _pop(self) -> object:
        if not self._stack or self._stack[-1] is _MARK:
            raise self._damaged("a value is missing")
        return self._stack.pop()

    def _top(self) -> object:
        if not self._stack or self._stack[-1] is _MARK:
            raise self._damaged("a value is missing")
        return self._stack[-1]

    def _to_mark(self) -> list[object]:
        for i in range(len(self._stack) - 1, -1, -1):
            if self._stack[i] is _MARK:
                items = self._stack[i + 1 :]
                del self._stack[i:]
                return items
        raise self._damaged("a mark is missing")

    def _step(self, name: str, argument: object) -> None:
        push = self._stack.append
        if name in _VALUES:
            push(argument)
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in self._containers:
            push(self._containers[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            push(_MARK)
        elif name == "TUPLE":
            push(tuple(self._to_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [self._pop() for _ in range(int(name[-1]))]
            push(tuple(reversed(items)))
        elif name == "APPEND":
            self._append([self._pop()])
        elif name == "APPENDS":
            self._append(self._to_mark())
        elif name == "SETITEM":
            value, key = self._pop(), self._pop()
            self._set([key, value])
        elif name == "SETITEMS":
            self._set(self._to_mark())
        elif name in ("BINPUT", "LONG_BINPUT"):
            assert isinstance(argument, int)
            self._remember(argument)
        elif name == "MEMOIZE":
            self._remember(len(self._memo))
        elif name in ("BINGET", "LONG_BINGET"):
            assert isinstance(argument, int)
            if argument not in self._memo:
                raise self._damaged(f"memo entry {argument} does not exist")
            push(self._memo[argument])
        elif name == "GLOBAL":
            push(Name(str(argument).replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            attribute, module = self._pop(), self._pop()
            if type(attribute) is not str or type(module) is not str:
                raise self._damaged("a global's name that is no text")
            push(Name(f"{module}.{attribute}"))
        elif name == "REDUCE":
            arguments, function = self._pop(), self._pop()
            push(self._call(function, arguments))
        elif name == "BUILD":
            self._build()
        elif name == "BINPERSID":
            push(self._storage(self._pop()))
        else:
            raise self._refuse_opcode(name)

    def _refuse_opcode(self, name: str) -> ModelFileError:
        classes = [v for v in self._stack[-3:] if isinstance(v, Name)]
        if name == "NEWOBJ" and classes:
            return self._refuse_name(classes[-1])
        return self._error(
            f"pickle opcode {name} at byte {self._position} is not needed for weights; nothing was executed. "
            f"Save the weights only: {save_line(self._where)}"
        )

    def _refuse_name(self, name: str) -> ModelFileError:
        shown = name[:80]
        if name.startswith("torch._utils._rebuild_q") or "quantized" in name or "ScriptObject" in name:
            return self._error(
                f"the file asks for {shown!r}: a quantised model. Save the float model's weights before "
                f"quantising: {save_line(self._where)}"
            )
        module = name.startswith(("torch.nn.modules.", "torch.nn.quantized", "torch.ao.nn"))
        if not module and name.partition(".")[0] in (
            "torch",
            "numpy",
            "collections",
            "_codecs",
            "argparse",
            "pathlib",
        ):
            return self._error(
                f"the file asks to call {shown!r} beside plain tensors. Only weights are read; nothing was "
                f"executed. Save the weights only: {save_line(self._where)}"
            )
        if name.rpartition(".")[2][:1].isupper():
            return self._error(
                f"the file asks to call {shown!r} (a whole model was pickled). "
                f"Save the weights only: {save_line(self._where)}"
            )
        return self._error(f"the file asks to call {shown!r}. Only weights are read; nothing was executed.")

    def _remember(self, index: int) -> None:
        self._memo[index] = self._top()

    def _append(self, items: list[object]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise self._damaged("items appended to what is no list")
        target.extend(items)

    def _set(self, items: list[object]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            raise self._damaged("items set on what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise self._damaged(f"a dict key of type {type(key).__name__}")
            if key in target:
                raise self._error(f"the name {str(key)[:80]!r} comes twice; the file is damaged or hostile")
            target[key] = value

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        # An OrderedDict of torch.save carries module versions as an attribute; tensors do not belong there.
        if not isinstance(target, dict) or not isinstance(state, dict) or set(state) - {"_metadata"}:
            raise self._error(
                f"the file sets attributes of an object at byte {self._position} of the pickle. "
                f"Save the weights only: {save_line(self._where)}"
            )
        self._dropped.append(state)

    def _call(self, function: object, arguments: object) -> object:
        if not isinstance(function, Name) or type(arguments) is not tuple:
            raise self._damaged("a call of what is no global")
        if function not in _ALLOWED_CALLS:
            raise self._refuse_name(function)
        if function == "collections.OrderedDict" and not arguments:
            return {}
        if function == "torch.device" and arguments and type(arguments[0]) is str:
            return arguments[0]
        if function == "torch.Size" and len(arguments) == 1 and _is_counts(arguments[0]):
            return arguments[0]
        if function.startswith("torch._utils._rebuild_tensor"):
            return self._tensor(function, arguments)
        if function == "torch._utils._rebuild_parameter" and len(arguments) == 3:
            tensor, _, hooks = arguments
            if isinstance(tensor, View) and hooks == {}:
                return tensor
        raise self._damaged(f"unexpected arguments of {function}")

    def _tensor(self, function: str, arguments: tuple[object, ...]) -> View:
        rest = arguments[4:]
        # requires_grad, an empty dict of hooks and, from some versions on, an empty dict of flags; a flag
        # like {"neg": True} would change the numbers.
        fine = not rest if not function.endswith("_v2") else (
            2 <= len(rest) <= 3 and type(rest[0]) is bool and all(v is None or v == {} for v in rest[1:])
        )  # fmt: skip
        if len(arguments) < 4 or not fine or not isinstance(arguments[0], Storage):
            raise self._damaged("a tensor with unexpected arguments (hooks, flags or no storage)")
        storage, offset, size, stride = arguments[:4]
        assert isinstance(storage, Storage)
        if not (is_count(offset) and _is_counts(size) and _is_counts(stride) and len(size) == len(stride)):
            raise self._damaged(
                f"a tensor whose offset, size or stride are no counts of at most {MAX_DIMENSIONS} dimensions"
            )
        self._views += 1
        if self._views > MAX_TENSORS:
            raise self._error(f"more than {MAX_TENSORS} tensors; not a file of weights")
        view = View(storage, offset, size, stride)
        if view.count > storage.count:
            raise self._damaged(f"a tensor of {view.count} elements on a storage of {storage.count}")
        return view

    def _storage(self, description: object) -> Storage:
        if not self._tensors_expected:
            raise self._damaged("a storage where none belongs")
        if isinstance(description, tuple) and description[:1] == ("module",):
            raise self._error(
                "a whole model with its source code was pickled. "
                f"Save the weights only: {save_line(self._where)}"
            )
        # ("storage", class, key, device, elements), in the legacy format also a view, always None today.
        if (
            not isinstance(description, tuple)
            or len(description) not in (5, 6)
            or description[0] != "storage"
        ):
            raise self._damaged("an unknown kind of storage")
        kind, key, _, count = description[1:5]
        if not isinstance(kind, Name) or not kind.startswith("torch."):
            raise self._damaged("a storage without a torch storage class")
        if "Q" in kind:
            raise self._refuse_name("torch.quantized." + kind.removeprefix("torch."))
        if kind.removeprefix("torch.") not in STORAGES:
            raise self._error(
                f"tensors of {kind[:80]!r} are not read: convert them to float32 first "
                "(state_dict values: tensor.float())"
            )
        if description[5:] not in ((), (None,)) or type(key) is not str or not is_count(count):
            raise self._damaged("a storage with an unexpected key or size")
        dtype, item_size = STORAGES[kind.removeprefix("torch.")]
        storage = Storage(key, dtype, count, item_size)
        if self.storages.setdefault(key, storage) != storage:
            raise self._damaged(f"storage {key[:40]!r} comes with two types or sizes")
        return storage


def save_line(where: str) -> str:
    """The line of Python that writes what can be read."""
    name = where.replace("\\", "/").rpartition("/")[2]
    return f'torch.save(model.state_dict(), "{name}")'


def holds_view(value: object, seen: set[int]) -> bool:
    """Whether a tensor is anywhere inside `value`.

    `seen` holds the ids of containers known to hold none and grows; give the same set to every call over one
    pickle, or a container shared a thousand times is walked a thousand times.
    """
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, View | Storage):
            return True
        if isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return False
