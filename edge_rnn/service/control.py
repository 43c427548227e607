"""The command topic: what operators may ask a running daemon to do, and the replies.

A command is one JSON object on `<topic>` (default `<base>/command`), its reply one on `<topic>/reply`:

    {"command": "acknowledge", "event": "<id>"}                   sinks hear no more of this event
    {"command": "mute", "stream": "pumps/pump1", "for": "1h"}     a stream, a group, or "*"; see `quiet.py`
    {"command": "unmute", "stream": "pumps/pump1"}
    {"command": "reset", "stream": "pumps/pump1"}                 the stream starts cold
    {"command": "commit"}                                         write everything to the database now
    {"command": "reload"}                                         read the configuration again

`id`, any text, comes back in the reply: {"id", "command", "ok", "error", "time"}. Nothing authenticates
here: who may publish to the topic is the broker's access list. Retained commands are ignored: they would be
carried out at every connect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, Protocol

import msgspec

from edge_rnn.errors import DecodeError, printable
from edge_rnn.files.config_walk import nearest, parse_duration
from edge_rnn.service.outputs import iso
from edge_rnn.service.quiet import ALL, Quiet
from edge_rnn.stream.topics import MAX_ID

MAX_BYTES: Final = 4096
LONGEST_MUTE_NS: Final = 366 * 86_400 * 10**9
Verb = Literal["acknowledge", "mute", "unmute", "reset", "commit", "reload"]
VERBS: Final[tuple[Verb, ...]] = ("acknowledge", "mute", "unmute", "reset", "commit", "reload")
_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    "acknowledge": ("event",), "mute": ("stream", "for"), "unmute": ("stream",), "reset": ("stream",),
    "commit": (), "reload": (),
}  # fmt: skip


class Actions(Protocol):
    """What a command can do to the daemon."""

    def has(self, name: str) -> bool:
        """Whether there is a stream, or a group, of this name."""

    def knows(self, event: str) -> bool:
        """Whether an event of this id is open."""

    def reset(self, stream: str) -> bool:
        """Start a stream cold; whether there was one."""

    def commit(self) -> bool | None:
        """Commit now; whether that worked, None if nobody knows yet."""

    def reload(self) -> None:
        """Read the configuration again, soon."""


class _Command(msgspec.Struct, forbid_unknown_fields=True):
    command: str
    id: str = ""
    event: str = ""
    stream: str = ""
    for_: str = msgspec.field(name="for", default="")


class Control:
    """Carries commands out.

    Args:
        quiet: what mutes and acknowledgements go to.
        actions: what the others do.
        wall_ns: the wall clock.
    """

    def __init__(self, quiet: Quiet, actions: Actions, wall_ns: Callable[[], int]) -> None:
        self.done = 0
        self.refused = 0
        self._quiet = quiet
        self._actions = actions
        self._wall_ns = wall_ns

    def take(self, payload: bytes) -> tuple[bytes, str, str]:
        """Carry out one command; the reply, and for the log its kind and one line.

        The kind is one of a handful, whatever was sent: repeats of a kind are summed up.
        """
        command = _Command(command="")
        error = ""
        try:
            command = _parse(payload)
            self._do(command)
            self.done += 1
        except DecodeError as refusal:
            error = str(refusal)
            self.refused += 1
        verb = printable(command.command[:40])
        reply = {
            "id": command.id[:64].encode("utf-8", "replace").decode(),
            "command": verb,
            "ok": not error,
            "error": error or None,
            "time": iso(self._wall_ns()),
        }
        about = printable(" ".join(filter(None, (command.stream, command.event, command.for_)))[:200])
        line = f"{verb or 'command'} {about}".strip() + (f": refused: {error}" if error else ": done")
        return msgspec.json.encode(reply), "refused" if error else verb, line

    def _do(self, command: _Command) -> None:
        verb = command.command
        if verb == "acknowledge":
            if not self._actions.knows(command.event):
                raise DecodeError(f"event: expected the id of one that is open, got {command.event[:80]!a}")
            self._quiet.acknowledge(command.event)
        elif verb in ("mute", "unmute", "reset"):
            self._do_stream(verb, command)
        elif verb == "commit":
            committed = self._actions.commit()
            if committed is None:
                raise DecodeError("not committed yet: the disk is slow; the commit goes on by itself")
            if not committed:
                raise DecodeError("the database cannot be written to now; see the daemon's log")
        else:
            self._actions.reload()

    def _do_stream(self, verb: str, command: _Command) -> None:
        stream = command.stream
        if verb == "unmute":
            if not self._quiet.unmute(stream):
                raise DecodeError(f"stream: expected one that is muted, got {stream[:80]!a}")
            return
        if not (verb == "mute" and stream == ALL) and not self._actions.has(stream):
            raise DecodeError(f"stream: expected one that there is, got {stream[:80]!a}")
        if verb == "reset":
            if not self._actions.reset(stream):
                raise DecodeError(f"stream: expected a stream, got the group {stream[:80]!a}")
            return
        length = parse_duration(command.for_)
        if length is None or not 0 < length <= LONGEST_MUTE_NS:
            raise DecodeError(
                f'for: expected a duration such as "1h", at most "366d", got {command.for_[:40]!a}'
            )
        try:
            self._quiet.mute(stream, self._wall_ns() + length)
        except ValueError as error:
            raise DecodeError(str(error)) from None


def _parse(payload: bytes) -> _Command:
    if len(payload) > MAX_BYTES:
        raise DecodeError(f"expected at most {MAX_BYTES} bytes, got {len(payload)}")
    try:
        command = msgspec.json.decode(payload, type=_Command)
    except (ValueError, RecursionError) as error:
        raise DecodeError(
            f'expected a command such as {{"command": "commit"}}: {str(error)[:120]!a}'
        ) from None
    if command.command not in VERBS:
        known = ", ".join(VERBS)
        hint = nearest(command.command, VERBS)
        raise DecodeError(f"command: expected one of {known}, got {command.command[:40]!a}{hint}")
    given = {"event": command.event, "stream": command.stream, "for": command.for_}
    for name, value in given.items():
        needed = name in _NEEDS[command.command]
        if needed and not 0 < len(value) <= MAX_ID:
            raise DecodeError(
                f"{command.command}: expected {name!r}, got {'nothing' if not value else 'too much'}"
            )
        if value and not needed:
            raise DecodeError(f"{command.command}: expected no {name!r}")
    return command
