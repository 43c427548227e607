"""The export in integers: every core and packing gives the Python integers, and what users see of it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import firmware_export
from edge_rnn import cli, load
from edge_rnn.core.integers import IntegerLayer, IntegerLinear, Quantized
from edge_rnn.core.model import Model
from edge_rnn.core.quantize import quantize
from edge_rnn.detect.detector import Detector
from edge_rnn.detect.integer import IntegerDetector, quantize_on
from edge_rnn.errors import DataError, ExportError, SnapshotError
from firmware_export import TARGETS, toolchain
from firmware_export.budget import budget
from firmware_export.golden import golden
from firmware_export.integer_source import Packing
from firmware_export.source import generate
from firmware_export.targets import MICROBIT, Target
from tests.core import zoo as plain_zoo
from tests.firmware_export.running import needed, same_outputs, same_verdicts, write
from tests.firmware_export.zoo import NETWORKS, any_detector, detectors, network, stream
from tests.support import need

PUMP = need.ROOT / "edge_rnn" / "demo" / "pump.safetensors"
HOST = TARGETS["host"]
CORES = {**{name: t for name, t in TARGETS.items() if t.machine}, "cortex-m0": MICROBIT}
SANITIZERS = ("-fsanitize=undefined,address", "-fno-sanitize-recover=all", "-g")
# Odd sizes, so that every packing has rows to fill up.
SHAPES = {
    "rnn_tanh": ([("rnn_tanh", 7, 0)], [(1, "none")]),
    "rnn_relu": ([("rnn_relu", 9, 0)], [(5, "relu")]),
    "lstm": ([("lstm", 20, 0)], [(4, "none")]),
    "lstm, two layers": ([("lstm", 16, 0), ("lstm", 9, 0)], [(3, "tanh")]),
    "lstm with projection": ([("lstm", 13, 5), ("lstm", 10, 8)], [(3, "sigmoid")]),
    "gru": ([("gru", 20, 0)], [(3, "none")]),
    "gru, three layers": ([("gru", 5, 0), ("gru", 17, 0), ("gru", 1, 0)], []),
    "mixed": ([("gru", 12, 0), ("lstm", 18, 0), ("rnn_relu", 6, 0), ("gru", 8, 0)], [(4, "none")]),
}
# The detector around the integers is the same C as around floats: by default once a packing and compiler.
DETECTED = ("cortex-m0plus", "m4f", "m55", "rv32imc", "aarch64")
# What grows without bound has no integer form.
JUDGED = ("full", "plain", "reconstruct", "classify")


@pytest.fixture(scope="module")
def pump() -> Model:
    return load(PUMP)


@pytest.fixture(scope="module")
def integers(pump: Model) -> Quantized:
    return quantize_on(pump, None)


@pytest.fixture
def once(pump: Model, integers: Quantized, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports of the pump without data take the constants that were computed before."""

    def known(model: Model, data: np.ndarray | None) -> Quantized:
        return integers if model is pump and data is None else quantize_on(model, data)

    monkeypatch.setattr("firmware_export.exporting.quantize_on", known)


@cache
def shaped(name: str) -> Quantized:
    model = network(len(name), *SHAPES[name])  # type: ignore[arg-type]
    return quantize(model, np.random.default_rng(3).standard_normal((300, 3)))


@cache
def judging(name: str) -> Quantized:
    model = _without_softmax(detectors()[name])
    _, readings, _ = stream(model, 400, seed=9)
    return quantize_on(model, readings)


def _without_softmax(model: Model) -> Model:
    head = tuple(replace(h, activation="none") if h.activation == "softmax" else h for h in model.head)
    return replace(model, head=head)


# ---- the same integers ---------------------------------------------------------------------------


def everywhere(
    folder: Path, target: Target, shapes: tuple[str, ...], judged: tuple[str, ...], steps: int,
    level: str = "-O2", compiler: str | None = None, extra: tuple[str, ...] = (),
) -> None:  # fmt: skip
    for name in shapes:
        quantized = shaped(name)
        same_outputs(
            folder / "n", quantized.model, target, fused=target.fused, steps=steps, level=level,
            compiler=compiler, extra=extra, quantized=quantized,
        )  # fmt: skip
    for name in judged:
        quantized = judging(name)
        seen = same_verdicts(
            folder / "d", quantized.model, target, fused=target.fused, steps=steps, level=level,
            compiler=compiler, extra=extra, quantized=quantized,
        )  # fmt: skip
        assert {"warming", "fault"} <= seen


@pytest.mark.parametrize("core", CORES)
def test_the_core_gives_the_same_integers(core: str, tmp_path: Path) -> None:
    everywhere(tmp_path, CORES[core], ("mixed",), ("full",) if core in DETECTED else (), 120)


@pytest.mark.parametrize("packing", ["plain", "narrow", "dsp", "mve"])
def test_any_packing_can_be_read_anywhere(packing: Packing, tmp_path: Path) -> None:
    """Made for one core, compiled for another: slower, and the same."""
    host = replace(HOST, packing=packing)
    judged = ("reconstruct",) if packing == "mve" else ()
    everywhere(tmp_path, host, ("mixed",), (), 300, compiler="gcc", extra=SANITIZERS)
    everywhere(tmp_path, host, ("lstm with projection",), judged, 300, level="-O3", compiler="clang")


def _torture(target: Target) -> list[tuple[Target, str | None, tuple[str, ...]]]:
    if target is not HOST:
        return [(target, None, ())]
    packings: tuple[Packing, ...] = ("plain", "narrow", "dsp", "mve")
    hosts = [replace(HOST, packing=p) for p in packings]
    return [(h, c, e) for h in hosts for c in ("gcc", "clang") for e in ((), SANITIZERS)]


@pytest.mark.torture
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("level", ["-Os", "-O2", "-O3"])
@pytest.mark.parametrize("core", [*CORES, "host"])
def test_long_streams(core: str, level: str, tmp_path: Path) -> None:
    for target, compiler, extra in _torture(CORES.get(core, HOST)):
        everywhere(
            tmp_path, target, tuple(SHAPES), JUDGED, 10_000, level=level, compiler=compiler,
            extra=extra,
        )  # fmt: skip


def _any_networks(seeds: range, folder: Path) -> None:
    for seed in seeds:
        rng = np.random.default_rng(seed)
        cells = [
            (("rnn_tanh", "rnn_relu", "lstm", "gru")[rng.integers(4)], int(rng.integers(1, 24)), 0)
            for _ in range(rng.integers(1, 4))
        ]
        head = [(int(rng.integers(1, 6)), ("none", "relu", "tanh", "sigmoid")[rng.integers(4)])]
        model = network(seed, cells, head[: rng.integers(2)], inputs=int(rng.integers(1, 9)))  # type: ignore[arg-type]
        spread = rng.uniform(0.1, 3)
        quantized = quantize(model, rng.standard_normal((300, model.input_size)) * spread)
        packing: Packing = ("plain", "narrow", "dsp", "mve")[rng.integers(4)]  # type: ignore[assignment]
        target = replace(HOST, packing=packing)
        same_outputs(
            folder, model, target, fused=True, steps=1000, level="-O1", quantized=quantized, lively=False
        )
        judged = _without_softmax(any_detector(seed))
        _, readings, _ = stream(judged, 300, seed=seed)
        try:
            integers = quantize_on(judged, readings)
        except ExportError:
            continue
        same_verdicts(folder, judged, target, fused=True, steps=1000, level="-O1", quantized=integers)


def test_any_network_gives_the_same_integers(tmp_path: Path) -> None:
    _any_networks(range(2), tmp_path)


@pytest.mark.torture
def test_many_networks_give_the_same_integers(tmp_path: Path) -> None:
    _any_networks(range(2, 200), tmp_path)


# ---- what it costs -------------------------------------------------------------------------------


@cache
def sized(cell: str, hidden: int) -> Quantized:
    """4 inputs and outputs, any integers: what is counted does not depend on them."""
    model = plain_zoo.model(cell, inputs=4, hidden=hidden, outputs=4, seed=2)
    rng = np.random.default_rng(0)
    rows = len(model.layers[0].w_ih)

    def integers(*shape: int, most: int = 127) -> np.ndarray:
        return rng.integers(-most, most, shape).astype(np.int8 if most == 127 else np.int32)

    layer = IntegerLayer(
        model.layers[0].cell, integers(rows, 4), integers(rows, hidden),
        rng.integers(0, 999, rows).astype(np.int32), rng.integers(0, 999, rows).astype(np.int32),
        integers(rows + (hidden if cell == "gru" else 0), most=9999), 15, 2.0**-15,
    )  # fmt: skip
    one = np.ones(4, np.float32)
    return Quantized(model, one * 1000, (layer,), IntegerLinear(integers(4, hidden), one, one, "none"))


@pytest.mark.parametrize(
    ("core", "most", "most_128"),
    [("m4f", 2.5, 1.7), ("cortex-m0plus", 10.0, 10.0), ("m55", 1.8, 1.8), ("rv32imc", 5.5, 5.5)],
)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_instructions_per_multiply_add(
    core: str, cell: str, most: float, most_128: float, tmp_path: Path
) -> None:
    target = TARGETS[core]
    needed(target)
    for hidden, limit in ((32, most), (128, most_128)):
        if hidden == 128 and limit == most:
            continue
        quantized = sized(cell, hidden)
        model = quantized.model
        write(tmp_path, model, fused=target.fused, quantized=quantized, packing=target.packing)
        toolchain.build(tmp_path, "pump", model, target, tmp_path / "program", detect=False)
        xs = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
        ran = toolchain.run(
            tmp_path / "program", model, target, toolchain.step_samples(xs), detect=False, count=True,
            quantized=quantized,
        )  # fmt: skip
        assert ran.instructions is not None
        assert ran.instructions / model.macs <= limit


@pytest.mark.parametrize(("cell", "gates", "state"), [("lstm", 4, 6), ("gru", 3, 4)])
def test_sizes_of_the_issue_hold(cell: str, gates: int, state: int) -> None:
    need.program("arm-none-eabi-gcc")
    quantized, core = sized(cell, 32), TARGETS["m4f"]
    model = quantized.model
    source = generate(model, "m", core.fused, quantized=quantized, packing=core.packing)
    recorded = golden(model, fused=core.fused, quantized=quantized)
    made = budget(
        model, "m", core, source, recorded, measure=True, clock_hz=None, quantized=quantized
    )  # fmt: skip
    assert made.state_bytes <= state * 32 + 16
    assert made.weight_bytes == model.macs
    assert made.table_bytes <= 12 * gates * 32 + 514 + 4 * (4 + 8)
    assert made.step.code_bytes is not None
    assert made.step.code_bytes <= 1229
    assert made.step.stack_bytes is not None
    assert made.step.stack_bytes <= 256


def test_no_symbol_is_needed_but_the_compilers_own(tmp_path: Path) -> None:
    quantized = shaped("mixed")
    for target in ("m4f", "cortex-m0plus", "rv32imc", "m55"):
        core = TARGETS[target]
        need.program(core.compiler)
        write(tmp_path / target, quantized.model, fused=core.fused, quantized=quantized, packing=core.packing)
        for level in ("-Os", "-O2"):
            code = tmp_path / f"{target}.o"
            toolchain.compile_only(tmp_path / target, "pump", core, code, level=level)
            tool = core.compiler.removesuffix("gcc") + "nm"
            out = subprocess.run([tool, "-u", code], capture_output=True, text=True, check=True).stdout
            symbols = {line.split()[-1] for line in out.splitlines()}
            assert all(s.startswith("__") for s in symbols), symbols


# ---- what users see ------------------------------------------------------------------------------


def recorded(model: Model, path: Path, rows: int = 300, columns: int | None = None) -> Path:
    assert model.scaler is not None
    z = np.random.default_rng(4).standard_normal((rows, model.input_size)) * 0.8
    values = z * model.scaler.std + model.scaler.mean
    names = [i.name for i in model.inputs][:columns]
    lines = [",".join(["time", *names])]
    lines += [",".join([str(1_700_000_000_000 + 50 * k), *(f"{v:.6g}" for v in row[: len(names)])])
              for k, row in enumerate(values)]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_digest_and_the_errors_are_told(pump: Model, tmp_path: Path, capsys) -> None:
    data = recorded(pump, tmp_path / "normal.csv")
    words = ["export", str(PUMP), "-o", str(tmp_path / "fw"), "--type", "w8a16", "--calibrate", str(data)]
    assert cli.main([*words, "--no-measure"]) == 0
    said = capsys.readouterr().out
    facts = json.loads((tmp_path / "fw/export.json").read_text())
    header = (tmp_path / "fw/pump.h").read_text("utf-8")
    assert facts["type"] == "w8a16"
    assert facts["integers"][:16] in said
    assert facts["integers"][:16] in header
    assert "error   outputs (scaled): max" in said
    assert "error   outputs (scaled): max" in header
    errors = facts["errors"]
    assert (errors["rows"], errors["verdicts"]) == (300, 300)
    assert 0 < errors["rms_error"] < errors["max_error"]
    assert errors["max_share"] < 0.02
    assert errors["agreement"] >= 0.99
    # The constants are those that replay judges the data with.
    assert cli.main(["replay", str(PUMP), str(data), "--backend", "w8a16", "--calibrate", str(data)]) == 0
    assert facts["integers"][:16] in capsys.readouterr().out
    assert cli.main([*words, "--no-measure", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["integers"] == facts["integers"]
    assert told["errors"] == errors


@pytest.mark.usefixtures("once")
def test_without_data_errors_are_those_on_noise(pump: Model, tmp_path: Path) -> None:
    made = firmware_export.export(pump, tmp_path / "fw", type="w8a16", measure=False)
    assert made.errors is not None
    assert made.errors.data == "noise"
    assert made.errors.max_share < 0.02


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("layout", ["c", "cmake", "arduino", "zephyr"])
def test_every_layout_passes_its_self_test(layout: str, pump: Model, tmp_path: Path) -> None:
    gcc = need.program("gcc")
    firmware_export.export(pump, tmp_path / "fw", type="w8a16", measure=False, layout=layout, target="host")
    source = tmp_path / "fw" / ("src" if layout in ("arduino", "zephyr") else "")
    (tmp_path / "main.c").write_text(
        '#include "pump_selftest.h"\nint main(void) { return pump_selftest(0, 0) != 0; }\n'
    )
    files = [tmp_path / "main.c", source / "pump.c", source / "pump_selftest.c"]
    subprocess.run([gcc, *toolchain.STRICT, f"-I{source}", "-o", tmp_path / "t", *files], check=True)
    assert subprocess.run([tmp_path / "t"], check=False).returncode == 0


def test_check_compares_verdicts_on_the_core(pump: Model, tmp_path: Path, capsys) -> None:
    need.program("arm-none-eabi-gcc")
    need.program("qemu-system-arm")
    data = recorded(pump, tmp_path / "normal.csv")
    words = ["export", str(PUMP), "-o", str(tmp_path / "fw"), "--type", "w8a16", "--no-measure"]
    assert cli.main([*words, "--calibrate", str(data), "--check", str(data)]) == 0
    assert "every bit is right" in capsys.readouterr().out


def test_the_device_starts_at_the_resting_state(pump: Model, tmp_path: Path) -> None:
    need.program("gcc")
    data = recorded(pump, tmp_path / "normal.csv")
    made = firmware_export.export(
        pump, tmp_path / "fw", type="w8a16", measure=False, target="host", rest=data, calibrate=data
    )
    rested = load(tmp_path / "fw/pump.safetensors")
    assert made.quantized is not None
    detector = IntegerDetector(made.quantized)
    times, xs, present = stream(rested, 50, seed=1)
    program = tmp_path / "program"
    toolchain.build(tmp_path / "fw", "pump", rested, HOST, program, detect=True)
    ran = toolchain.run(
        program, rested, HOST, toolchain.detect_samples(times, xs, present), detect=True,
        quantized=made.quantized,
    )  # fmt: skip
    assert ran.answers["score"].tobytes() == detector.run(times, xs, present)["score"].tobytes()
    assert "pump_rest_h0[] = {" in (tmp_path / "fw/pump.c").read_text("utf-8")


@pytest.mark.parametrize("name", ["full", "reconstruct"])
def test_a_stream_moves_to_the_device_and_back(name: str, tmp_path: Path) -> None:
    need.program("gcc")
    quantized = judging(name)
    model = quantized.model
    times, xs, present = stream(model, 900, seed=3)
    here = IntegerDetector(quantized)
    here.run(times[:300], xs[:300], present[:300])
    device = firmware_export.to_device(model, here.snapshot(), quantized=quantized)
    snapshot = firmware_export.from_device(model, device, quantized=quantized)
    assert firmware_export.to_device(model, snapshot, quantized=quantized) == device
    # The daemon's float detector can go on from it, and lead back.
    there = Detector(model)
    there.restore(snapshot)
    again = IntegerDetector(quantized)
    again.restore(there.snapshot())
    one, other = (d.run(times[300:600], xs[300:600], present[300:600]) for d in (here, again))
    assert one.tobytes() == other.tobytes()
    write(tmp_path, model, fused=True, quantized=quantized, initial=device)
    toolchain.build(tmp_path, "pump", model, HOST, tmp_path / "program", detect=True)
    samples = toolchain.detect_samples(times[300:600], xs[300:600], present[300:600])
    ran = toolchain.run(tmp_path / "program", model, HOST, samples, detect=True, quantized=quantized)
    assert ran.answers["score"].tobytes() == one["score"].tobytes()
    back = IntegerDetector(quantized)
    back.restore(firmware_export.from_device(model, ran.state, quantized=quantized))
    assert (
        back.run(times[600:], xs[600:], present[600:]).tobytes()
        == here.run(times[600:], xs[600:], present[600:]).tobytes()
    )


def test_states_of_others_and_damaged_ones_are_refused(pump: Model, integers: Quantized) -> None:
    quantized = integers
    state = firmware_export.to_device(pump, Detector(pump).snapshot(), quantized=quantized)
    with pytest.raises(SnapshotError, match="bytes of pump's state"):
        firmware_export.from_device(pump, state[:-1], quantized=quantized)
    with pytest.raises(SnapshotError):
        firmware_export.from_device(pump, b"\x7f" * len(state), quantized=quantized)
    rng = np.random.default_rng(0)
    for _ in range(3000):
        mutant = bytearray(state)
        for _ in range(rng.integers(1, 4)):
            mutant[rng.integers(len(mutant))] = rng.integers(256)
        try:
            back = firmware_export.from_device(pump, bytes(mutant), quantized=quantized)
        except SnapshotError:
            continue
        assert back[:4] == b"ERDS"


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.usefixtures("once")
def test_what_has_no_integer_form_is_named_and_leaves_nothing(pump: Model, tmp_path: Path) -> None:
    cases = [
        (network(1, *NETWORKS["mixed, softmax"]), {}, "head: w8a16 has at most one Linear, got 3; use f32"),
        (
            network(1, [("gru", 4, 0)], [(3, "softmax")]),
            {},
            "w8a16 has none, relu, tanh, sigmoid, got softmax",
        ),
        (network(1, [("rnn_relu", 4, 0)], []), {}, "no activation_ranges; give calibration data"),
        (pump, {"flash": 1000}, "flash: 2,"),
        (pump, {"ram": 100}, "RAM: 416 bytes of state and verdict"),
        (pump, {"name": "int"}, "name: expected a C identifier"),
        (pump, {"type": "w4"}, "type: expected one of f32, w8a16"),
    ]
    for model, options, said in cases:
        with pytest.raises(ExportError) as caught:
            firmware_export.export(
                model,
                tmp_path / "fw",
                **{"type": "w8a16", "measure": False, **options},  # type: ignore[arg-type]
            )
        assert said in str(caught.value)
        assert not list(tmp_path.iterdir())


def test_calibration_data_that_does_not_do_leaves_nothing(pump: Model, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    missing = recorded(pump, folder / "missing.csv", columns=2)
    hollow = folder / "hollow.csv"
    hollow.write_text("time,vibration,temperature,pressure\n1000,1,2,\n2000,1,2,\n")
    for data, said in (
        (missing, "no such column"), (hollow, "channel 'pressure' has no finite value"),
        (folder / "no.csv", "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=said):
            firmware_export.export(pump, tmp_path / "fw", type="w8a16", calibrate=data)
    words = ["export", str(PUMP), "-o", str(tmp_path / "fw"), "--type", "w8a16", "--calibrate", str(missing)]
    assert cli.main(words) == 65
    assert capsys.readouterr().err.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"data"}
