"""The trained model as self-contained C99 for microcontrollers, bit for bit the Python runtime's numbers.

    import edge_rnn, firmware_export
    firmware_export.export(edge_rnn.load("pump.safetensors"), "fw", target="m4f")

`runtime/` holds the arithmetic as templates, `source.py` fills in a model, `layouts.py` adds the build
files, `harness/` and `toolchain.py` run the result under QEMU, `state.py` carries a stream between daemon
and device.
"""

from firmware_export.exporting import Export, export
from firmware_export.state import from_device, to_device
from firmware_export.targets import TARGETS, Target

__all__ = ["TARGETS", "Export", "Target", "export", "from_device", "to_device"]
