"""Which dict of tensors a PyTorch file means.

What `torch.save` was given is either a state dict, or a checkpoint: a dict that holds one beside an
optimiser's state, numbers and texts. The object itself is taken if it holds tensors, else the one dict inside
it that has a recurrent layer's names. Nothing is dropped in silence: beside the chosen dict, only what is
known to be no weight is left out (optimiser state, a random generator's state, single numbers); other tensors
are an error that names `key`.

The object may be hostile: containers can be shared a thousand times or hold themselves, so every walk visits
a container once.
"""

from __future__ import annotations

from collections.abc import Iterator

from edge_rnn.errors import ModelFileError, printable
from edge_rnn.files.state_dict import recurrent_part
from edge_rnn.files.torch_pickle import View, holds_view, save_line

MAX_NESTING = 8


def _is_optimiser(value: object) -> bool:
    """Whether this is an optimiser's state dict, or a list of them."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) and _is_optimiser(item) for item in value)
    return isinstance(value, dict) and value.keys() == {"state", "param_groups"}


def _is_aside(value: object) -> bool:
    """Whether a tensor beside the weights is known to be none of them: one number, or a generator's state."""
    return isinstance(value, View) and (value.count <= 1 or value.storage.dtype == "u1")


def _has_recurrent(value: dict[object, object]) -> bool:
    return any(isinstance(k, str) and isinstance(v, View) and recurrent_part(k) for k, v in value.items())


def _survey(
    value: dict[object, object], path: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[str, dict[object, object] | None]]:
    """Walk a checkpoint's dicts, each once: (dotted path, dict) of every dict with a recurrent layer's names,
    and (dotted path, None) of whatever else holds tensors that may be weights.
    """
    for name, item in value.items():
        here = (*path, str(name)[:80])
        if isinstance(item, View):
            if not _is_aside(item):
                yield ".".join(here), None
        elif not isinstance(item, dict | list | tuple) or id(item) in seen:
            continue
        elif _is_optimiser(item):
            seen.add(id(item))
        elif isinstance(item, dict) and _has_recurrent(item):
            seen.add(id(item))
            yield ".".join(here), item
        elif isinstance(item, dict) and len(here) < MAX_NESTING:
            seen.add(id(item))
            yield from _survey(item, here, seen)
        elif holds_view(item, seen):
            yield ".".join(here), None


def choose(value: object, key: str | None, where: str) -> dict[str, View]:
    """The one dict of name -> tensor to read."""
    if isinstance(value, View):
        raise ModelFileError(f"{where}: a single tensor without a name; save the dict: {save_line(where)}")
    if not isinstance(value, dict):
        raise ModelFileError(
            f"{where}: expected a dict of tensors, got a {type(value).__name__}; "
            f"save the dict: {save_line(where)}"
        )
    if key is not None:
        return _flat(_descend(value, key, where), key, where)
    # A recurrent layer of one unit and one input has nothing but single numbers.
    if _has_recurrent(value) or any(isinstance(v, View) and not _is_aside(v) for v in value.values()):
        return _flat(value, "", where)
    found: dict[str, dict[object, object]] = {}
    strays: list[str] = []
    for path, part in _survey(value, (), set()):
        if part is None:
            strays.append(path)
        else:
            found[path] = part
    if len(found) != 1:
        names = ", ".join(map(repr, [*(found or value)][:8]))[:400]
        what = "several dicts hold a recurrent layer" if found else "no recurrent layer found in its dicts"
        raise ModelFileError(f"{where}: {what} ({names}); say which to read: --key NAME (key=...)")
    ((path, chosen),) = found.items()
    if strays:
        raise ModelFileError(
            f"{where}: {path!r} holds the recurrent layer, but {strays[0]!r} holds tensors too; "
            f"to read the first alone: --key {printable(path)} (key={path!r}); else save one state_dict"
        )
    return _flat(chosen, path, where)


def _descend(value: dict[object, object], key: str, where: str) -> dict[object, object]:
    """The dict at a dotted path; a name with dots in it is tried as a whole first."""
    current: object = value
    rest = key
    while rest:
        if not isinstance(current, dict):
            break
        head = rest if rest in current else rest.partition(".")[0]
        if head not in current:
            break
        current, rest = current[head], rest[len(head) + 1 :]
    if rest or not isinstance(current, dict):
        names = ", ".join(repr(str(name)[:40]) for name in list(value)[:8])
        raise ModelFileError(f"{where}: no dict called {key!r} in the file; it has {names}")
    return current


def _flat(chosen: dict[object, object], path: str, where: str) -> dict[str, View]:
    """The tensors of one dict; plain numbers and texts beside them are left out, hidden tensors refused."""
    views: dict[str, View] = {}
    seen: set[int] = set()
    for name, item in chosen.items():
        if isinstance(item, View) and isinstance(name, str):
            views[name] = item
        elif holds_view(item, seen):
            place = f"{path}.{name}"[:80] if path else str(name)[:80]
            raise ModelFileError(
                f"{where}: {place!r} is a {type(item).__name__} with tensors inside, beside plain tensors; "
                f"read it alone with --key {printable(place)} (key={place!r}), "
                f"or save one flat dict: {save_line(where)}"
            )
    if not views:
        raise ModelFileError(
            f"{where}: no tensor in {path or 'the file'!r}; save the dict: {save_line(where)}"
        )
    return views
