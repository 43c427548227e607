"""Step-wise recurrent inference on live sensor data, on the device itself.

    import edge_rnn
    model = edge_rnn.load("pump.safetensors")
    detector = edge_rnn.Detector(model)
    verdict = detector.step(x, time_ns)

Names are imported when they are first used: `import edge_rnn` alone loads neither Numba nor paho nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edge_rnn.core.batch import StepperBatch
    from edge_rnn.core.model import Input, Linear, Model, Recurrent, Scaler
    from edge_rnn.core.stepper import Stepper
    from edge_rnn.core.window import WindowStepper
    from edge_rnn.detect.detector import Detector, score
    from edge_rnn.detect.verdict import Fault, Verdict
    from edge_rnn.errors import EdgeRnnError
    from edge_rnn.files.load import load
    from edge_rnn.files.model_file import save
    from edge_rnn.files.state_dict import load_state_dict

_HOME = {
    "StepperBatch": "edge_rnn.core.batch",
    "Input": "edge_rnn.core.model",
    "Linear": "edge_rnn.core.model",
    "Model": "edge_rnn.core.model",
    "Recurrent": "edge_rnn.core.model",
    "Scaler": "edge_rnn.core.model",
    "Stepper": "edge_rnn.core.stepper",
    "WindowStepper": "edge_rnn.core.window",
    "Detector": "edge_rnn.detect.detector",
    "score": "edge_rnn.detect.detector",
    "Fault": "edge_rnn.detect.verdict",
    "Verdict": "edge_rnn.detect.verdict",
    "EdgeRnnError": "edge_rnn.errors",
    "load": "edge_rnn.files.load",
    "save": "edge_rnn.files.model_file",
    "load_state_dict": "edge_rnn.files.state_dict",
}

__all__ = [
    "Detector", "EdgeRnnError", "Fault", "Input", "Linear", "Model", "Recurrent", "Scaler", "Stepper",
    "StepperBatch", "Verdict", "WindowStepper", "__version__", "load", "load_state_dict", "save", "score",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'edge_rnn' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
