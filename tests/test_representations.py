"""What an interactive session prints of the public objects: one short line, never the weights."""

from __future__ import annotations

import pytest

import edge_rnn
from edge_rnn.core.model import RestState
from tests.support import need

MODEL = edge_rnn.load(need.ROOT / "edge_rnn" / "demo" / "pump.safetensors")


def test_a_model_says_its_network_inputs_and_detector() -> None:
    assert repr(MODEL) == (
        "<Model 'pump': gru 3 -> 16, linear 16 -> 3; 1,059 parameters; "
        "inputs vibration, temperature, pressure; forecast detector>"
    )


def test_parts_of_a_model_say_their_sizes() -> None:
    assert repr(MODEL.layers) == "(<Recurrent gru 3 -> 16>,)"
    assert repr(MODEL.head) == "(<Linear 16 -> 3 none>,)"
    assert repr(MODEL.scaler) == "<Scaler of 3 channel(s)>"
    assert repr(MODEL.self_test).startswith("<SelfTest of 32 step(s), tolerance ")
    assert isinstance(MODEL.rest_state, RestState)
    assert repr(MODEL.rest_state) == "<RestState of 1 layer(s)>"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: edge_rnn.Stepper(MODEL), "<Stepper of 'pump': gru 3 -> 16, linear 16 -> 3; class "),
        (lambda: edge_rnn.StepperBatch(MODEL, 5), "5 stream(s)>"),
        (lambda: edge_rnn.WindowStepper(MODEL, 50), "0 of 50 readings in the window>"),
        (lambda: edge_rnn.Detector(MODEL), "readings (vibration, temperature, pressure)>"),
    ],
)
def test_what_steps_says_its_model_and_where_it_is(made, said: str) -> None:
    shown = repr(made())
    assert said in shown
    assert len(shown) < 150
    assert "\n" not in shown


def test_a_stepper_counts() -> None:
    stepper = edge_rnn.Stepper(MODEL)
    stepper.run([[0.0, 0.0, 0.0]] * 7)
    assert repr(stepper).endswith("7 step(s) taken>")
