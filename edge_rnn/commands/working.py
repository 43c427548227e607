"""What a command says while it takes seconds: a moving line on a terminal, else one plain line, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

Progress = Callable[[str], None]


@contextmanager
def working(what: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Gives what to call before each step that takes long; the line is gone from a terminal afterwards.

    Nothing is said before the first step, so that a mistake found at once is told alone.

    Args:
        what: the whole of it, like "compiling for cortex-a72: this takes some seconds"; said once where there
            is no terminal, which shows the steps instead.
        quiet: say nothing, as where the output is for a program.
    """
    said = False
    with ExitStack() as stack:
        shown: Progress | None = None

        def say(step: str) -> None:
            nonlocal said, shown
            if quiet:
                return
            if shown is not None:
                shown(step)
            elif sys.stderr.isatty():
                shown = _spinner(stack, step)
            elif not said:
                sys.stderr.write(f"{what}\n")
                sys.stderr.flush()
            said = True

        yield say


def _spinner(stack: ExitStack, step: str) -> Progress:
    from rich.console import Console
    from rich.text import Text

    status = stack.enter_context(Console(stderr=True).status(Text(f"{step} ...")))
    return lambda next_step: status.update(Text(f"{next_step} ..."))
