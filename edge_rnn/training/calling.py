"""Run somebody else's `nn.Module` on one sequence and get its output for every step.

Modules differ in how they want to be called: a whole sequence with or without a batch dimension, batch
first or second, one step at a time, with or without a state argument; and in what they return: the
outputs of all steps or of the last one, alone or as a tuple with the state. `ways` lists the calls worth
trying, the likely ones first; each is a function from (T, I) to (T, O). There is always exactly one
sequence, so an output's number of elements says what it is: T*O means all steps, O the last step. For a
last-step module the sequence is run again for every prefix, which gives its output at every step.

Which way is right is not decided here: the caller accepts the one that its own equations reproduce.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from edge_rnn.errors import ExportError
from edge_rnn.training.extra import nn, torch
from edge_rnn.training.parts import RECURRENT, where

Way = Callable[[Any, int], Any]
"""Inputs (T, I) and the number of outputs O to outputs (T, O), both tensors."""


class WrongCallError(Exception):
    """This way of calling the module gives nothing that could be its output per step."""


def ways(module: Any) -> Iterator[tuple[str, Way]]:
    """(what it does, how) for every way of calling `module`; likely ones first."""
    recurrent = [part for part in module.modules() if isinstance(part, RECURRENT)]
    batch_first = bool(recurrent and getattr(recurrent[0], "batch_first", False))
    steps_only = not recurrent or all(isinstance(part, nn.RNNCellBase) for part in recurrent)
    views: dict[str, tuple[int, ...]] = {"(1, T, I)": (1, -1), "(T, 1, I)": (-1, 1), "(T, I)": (-1,)}
    order = list(views)
    if not batch_first:
        order[0], order[1] = order[1], order[0]
    needed = _state_arguments(module)
    for view in order:
        for label, states in _states(recurrent, needed):
            yield f"x {view}{label}", _sequence(module, views[view], states)
    if needed or steps_only:
        for shape in ((1,), (), (1, 1)):
            for label, states in _states(recurrent, max(needed, 1)):
                if shape == () and states and states[0] is not None:
                    continue
                yield f"one step at a time{label}", _stepwise(module, shape, states, needed or 1)


def _state_arguments(module: Any) -> int:
    """How many arguments `forward` needs beside the inputs."""
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return 0
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.kind in positional and p.default is inspect.Parameter.empty]
    return max(0, len(needed) - 1)


def _states(recurrent: list[Any], needed: int) -> Iterator[tuple[str, list[Any]]]:
    """Initial states worth trying for `needed` state arguments."""
    if needed == 0:
        yield "", []
        return
    if len(recurrent) == needed:
        yield " with zero states", [_zeros(part) for part in recurrent]
    if needed == 2 and len(recurrent) == 1 and isinstance(recurrent[0], (nn.LSTM, nn.LSTMCell)):
        yield " with zero h and c", list(_zeros(recurrent[0]))
    if needed == 1 and len(recurrent) > 1:
        yield " with zero states", [[_zeros(part) for part in recurrent]]
    yield " with state None", [None] * needed


def _zeros(part: Any) -> Any:
    """The zero state of one recurrent part for one sequence."""
    like = next(part.parameters())
    if isinstance(part, nn.RNNCellBase):
        h = like.new_zeros(1, part.hidden_size)
        return (h, torch.zeros_like(h)) if isinstance(part, nn.LSTMCell) else h
    h = like.new_zeros(part.num_layers, 1, part.proj_size or part.hidden_size)
    if not isinstance(part, nn.LSTM):
        return h
    return h, like.new_zeros(part.num_layers, 1, part.hidden_size)


def _sequence(module: Any, lead: tuple[int, ...], states: list[Any]) -> Way:
    def run(x: Any, outputs: int) -> Any:
        steps = x.shape[0]
        y = _first(module(x.reshape(*lead, x.shape[1]), *states))
        if y.numel() == steps * outputs:
            return y.reshape(steps, outputs)
        if y.numel() != outputs:
            raise WrongCallError(f"{tuple(y.shape)} for {steps} steps and {outputs} outputs")
        rows = [_first(module(x[: t + 1].reshape(*lead, x.shape[1]), *states)) for t in range(steps)]
        return torch.stack([row.reshape(outputs) for row in rows])

    return run


def _stepwise(module: Any, lead: tuple[int, ...], states: list[Any], count: int) -> Way:
    bare_cell = isinstance(module, nn.RNNCellBase)

    def run(x: Any, outputs: int) -> Any:
        state = list(states)
        rows = []
        for row in x:
            result = module(row.reshape(*lead, x.shape[1]), *state)
            if bare_cell:
                state = [result]
            elif isinstance(result, (tuple, list)) and len(result) == 1 + count:
                state = list(result[1:])
            elif isinstance(result, (tuple, list)) and len(result) == 2 and count > 1:
                state = list(result[1])
            else:
                raise WrongCallError("no new state beside the output")
            y = _first(result)
            if y.numel() != outputs:
                raise WrongCallError(f"{tuple(y.shape)} for one step and {outputs} outputs")
            rows.append(y.reshape(outputs))
        return torch.stack(rows)

    return run


def _first(result: Any) -> Any:
    """The output out of what a module returned: a tensor, or the first of a tuple."""
    while isinstance(result, (tuple, list)) and result:
        result = result[0]
    if not isinstance(result, torch.Tensor):
        raise WrongCallError(f"a {type(result).__name__} where a tensor was expected")
    return result


def check_dtype(module: Any) -> Any:
    """The module's own dtype and device, from its first parameter; `ExportError` for half precision."""
    for name, parameter in module.named_parameters():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise ExportError(
                f"parameter {name} has dtype {parameter.dtype}: expected float32 or float64; "
                "call module.float() before the export"
            )
        return parameter
    raise ExportError(f"{where('', module)} has no parameters; expected a trained RNN, LSTM or GRU")
