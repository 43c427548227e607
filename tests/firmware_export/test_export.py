"""`export` as its users call it: what is written, what is refused, and that it is whole or not there."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import firmware_export
from edge_rnn import cli, load
from edge_rnn.core.detector_spec import ThresholdSpec
from edge_rnn.core.model import Input, Model
from edge_rnn.core.stepper import Stepper
from edge_rnn.detect.detector import Detector
from edge_rnn.errors import DataError, ExportError, SnapshotError
from firmware_export import budget, toolchain
from tests.firmware_export.zoo import detectors, network, stream
from tests.support import need

PUMP = need.ROOT / "edge_rnn" / "demo" / "pump.safetensors"
DETECTORS = detectors()


@pytest.fixture(scope="module")
def pump() -> Model:
    return load(PUMP)


def exported(model: Model, folder: Path, **options: object) -> firmware_export.Export:
    return firmware_export.export(model, folder, **{"measure": False, **options})  # type: ignore[arg-type]


# ---- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["host", "m4f", "cortex-m0plus", "rv32imafc"])
def test_make_builds_and_runs_the_self_test(target: str, pump: Model, tmp_path: Path) -> None:
    core = firmware_export.TARGETS[target]
    need.program("make")
    need.program(core.compiler)
    if core.machine:
        need.program(core.machine[0])
    exported(pump, tmp_path / "fw", target=target)
    done = subprocess.run(
        ["make", "-C", tmp_path / "fw", "run-selftest"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "every bit is right" in done.stdout
    assert "warning" not in done.stderr


def test_the_self_test_sees_one_wrong_bit(pump: Model, tmp_path: Path) -> None:
    need.program("make")
    need.program("gcc")
    exported(pump, tmp_path / "fw", target="host")
    code = tmp_path / "fw" / "pump.c"
    text = code.read_text("utf-8")
    start = text.index("pump_layer0[] = {")
    weight = re.search(r"0x1\.(\w)", text[start:])
    assert weight is not None
    at = start + weight.start(1)
    code.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :], "utf-8")
    done = subprocess.run(
        ["make", "-C", tmp_path / "fw", "run-selftest"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0


@pytest.mark.parametrize("target", ["host", "m4f"])
def test_cmake_builds_and_ctest_passes(target: str, pump: Model, tmp_path: Path) -> None:
    core = firmware_export.TARGETS[target]
    cmake, ctest = need.program("cmake"), need.program("ctest")
    need.program(core.compiler)
    if core.machine:
        need.program(core.machine[0])
    exported(pump, tmp_path / "fw", target=target, layout="cmake")
    chain = ["-DCMAKE_TOOLCHAIN_FILE=toolchain.cmake"] if target != "host" else []
    for words in (
        [cmake, "-S", ".", "-B", "build", *chain], [cmake, "--build", "build"],
        [ctest, "--test-dir", "build", "--output-on-failure"],
    ):  # fmt: skip
        done = subprocess.run(words, cwd=tmp_path / "fw", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_arduino_library_has_its_form_and_its_sketches_compile(pump: Model, tmp_path: Path) -> None:
    """Arduino's own tools are not in Debian: the form is checked, and the sketches against a stand-in."""
    made = exported(pump, tmp_path / "fw", layout="arduino")
    properties = dict(
        line.split("=", 1) for line in (tmp_path / "fw/library.properties").read_text("utf-8").splitlines()
    )
    assert {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url",
            "architectures", "includes"} <= properties.keys()  # fmt: skip
    assert all(properties.values())
    sketches = [file for file in made.files if file.endswith(".ino")]
    assert len(sketches) == 2
    for file in sketches:
        assert Path(file).stem == Path(file).parent.name
    compiler = need.program("g++")
    (tmp_path / "Arduino.h").write_text(
        "#include <stdint.h>\nstruct Port { void begin(long) {} operator bool() { return true; }\n"
        "template <class T> void print(T) {} template <class T> void println(T) {} };\n"
        "static Port Serial; inline int analogRead(int) { return 0; } inline void delay(unsigned long) {}\n"
        "enum { A0, A1, A2, A3 };\n"
    )
    for file in sketches:
        words = [
            compiler,
            "-x",
            "c++",
            "-fsyntax-only",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-include",
            "Arduino.h",
        ]
        words += ["-I", ".", "-I", "fw/src", f"fw/{file}"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_zephyr_module_has_its_form(pump: Model, tmp_path: Path) -> None:
    """Zephyr's tools are not in Debian: the form is checked."""
    exported(pump, tmp_path / "fw", layout="zephyr")
    module = (tmp_path / "fw/zephyr/module.yml").read_text("utf-8")
    assert module == "name: pump\nbuild:\n  cmake: zephyr\n  kconfig: zephyr/Kconfig\n"
    listed = (tmp_path / "fw/zephyr/CMakeLists.txt").read_text("utf-8")
    for file in re.findall(r"\.\./(src/\S+\.c)", listed):
        assert (tmp_path / "fw" / file).is_file()
    options = set(re.findall(r"CONFIG_(\w+)", listed))
    assert options == set(re.findall(r"^config (\w+)$", (tmp_path / "fw/zephyr/Kconfig").read_text(), re.M))


def test_several_models_live_in_one_program(pump: Model, tmp_path: Path) -> None:
    gcc = need.program("gcc")
    exported(pump, tmp_path / "a", name="first", target="host")
    exported(DETECTORS["full"], tmp_path / "b", name="second", target="host")
    exported(network(1, [("lstm", 4, 0)], []), tmp_path / "c", name="third", target="host")
    main = "".join(f'#include "{n}_selftest.h"\n#include "{n}.h"\n' for n in ("first", "second", "third"))
    sums = " + ".join(f"{n}_selftest(0, 0)" for n in ("first", "second", "third"))
    (tmp_path / "main.c").write_text(f"{main}int main(void) {{ return {sums}; }}\n")
    files = [str(p) for p in tmp_path.glob("[abc]/*.c") if "main" not in p.name]
    flags = [*toolchain.STRICT, *toolchain.host_flags(fused=True), *(f"-I{tmp_path / d}" for d in "abc")]
    subprocess.run([gcc, *flags, "-o", tmp_path / "all", tmp_path / "main.c", *files], check=True)
    assert subprocess.run([tmp_path / "all"], check=False).returncode == 0


def test_a_model_may_be_called_model(tmp_path: Path) -> None:
    """The name that `export_model` gives by itself; the counting harness has words of its own."""
    model = network(0, [("gru", 5, 0)], [(2, "none")])
    report = exported(model, tmp_path / "out", name="model", target="m4f", measure=True)
    assert report.budget.not_measured == ""
    assert report.budget.step.instructions


def test_no_symbol_is_needed_but_the_compilers_own(pump: Model, tmp_path: Path) -> None:
    for target, allowed in (("m4f", r"__aeabi_\w+"), ("cortex-m0plus", r"__\w+"), ("rv32imc", r"__\w+")):
        core = firmware_export.TARGETS[target]
        need.program(core.compiler)
        exported(pump, tmp_path / target, target=target)
        for level in ("-Os", "-O2"):
            code = tmp_path / f"{target}.o"
            toolchain.compile_only(tmp_path / target, "pump", core, code, level=level)
            tool = core.compiler.removesuffix("gcc") + "nm"
            out = subprocess.run([tool, "-u", code], capture_output=True, text=True, check=True).stdout
            symbols = {line.split()[-1] for line in out.splitlines()} - {"memcpy", "memset"}
            assert symbols
            assert all(re.fullmatch(allowed, s) for s in symbols), symbols
            step = tmp_path / f"{target}-step"
            exported(replace(pump, detector=None), step, target=target)
            toolchain.compile_only(step, "pump", core, code, level=level)
            out = subprocess.run([tool, "-u", code], capture_output=True, text=True, check=True).stdout
            assert not {"memcpy", "memset"} & set(out.split())


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": "z80"}, "target: expected one of cortex-m0plus, m3"),
        ({"calibrate": "normal.csv"}, "calibrate: only integers have ranges"),
        ({"type": "f16"}, "type: expected one of f32"),
        ({"layout": "keil"}, "layout: expected one of c, cmake"),
        ({"name": "2nd"}, "name: expected a C identifier"),
        ({"name": "pump-3"}, "name: expected a C identifier"),
        ({"name": "int"}, "name: expected a C identifier"),
        ({"name": "stdint"}, "name: expected a C identifier"),
        ({"name": "pümp"}, "name: expected a C identifier"),
        ({"name": "pump_"}, "name: expected a C identifier"),
        ({"name": ""}, "name: expected a C identifier"),
        ({"flash": 1000}, "flash: 4,448 bytes without code, but only 1,000 given"),
        ({"ram": 100}, "RAM: 416 bytes of state and verdict and 0 of stack, but only 100 given"),
        ({"flash": 0}, "flash: expected a number above 0, got 0"),
        ({"clock_hz": float("nan")}, "clock: expected a number above 0, got nan"),
    ],
)
def test_bad_options_leave_nothing(
    options: dict[str, object], said: str, pump: Model, tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as caught:
        exported(pump, tmp_path / "fw", **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    model = DETECTORS["plain"]
    spec = model.detector
    assert spec is not None
    dspot = replace_threshold(model, ThresholdSpec(kind="dspot", value=1.0))
    with pytest.raises(ExportError, match=r"threshold dspot .* exportable are the scorers mewma, ewma_z"):
        exported(dspot, tmp_path / "fw")
    long = replace_threshold(model, ThresholdSpec(kind="fixed", value=1.0, max_freeze=2**40))
    with pytest.raises(ExportError, match=r"threshold\.max_freeze: expected less than 4294967295"):
        exported(long, tmp_path / "fw")
    assert not list(tmp_path.iterdir())


def replace_threshold(model: Model, threshold: ThresholdSpec) -> Model:
    import msgspec

    assert model.detector is not None
    return replace(model, detector=msgspec.structs.replace(model.detector, threshold=threshold))


def test_a_directory_of_others_is_never_replaced(pump: Model, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for place in ("mine", "file", "link", "file/below"):
        with pytest.raises(ExportError):
            exported(pump, tmp_path / place)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} == {"mine", "file", "link"}


def test_an_earlier_export_is_replaced_as_a_whole(pump: Model, tmp_path: Path) -> None:
    exported(pump, tmp_path / "fw", name="old", layout="arduino")
    made = exported(pump, tmp_path / "fw", name="newer", target="host")
    found = {p.relative_to(tmp_path / "fw").as_posix() for p in (tmp_path / "fw").rglob("*") if p.is_file()}
    assert found == set(made.files)
    assert "newer.c" in found
    assert {p.name for p in tmp_path.iterdir()} == {"fw"}


def test_a_write_that_fails_leaves_the_earlier_export(
    pump: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = exported(pump, tmp_path / "fw", target="host")
    before = {f: (tmp_path / "fw" / f).read_bytes() for f in made.files}
    real, calls = Path.write_text, []

    def full(self: Path, *args: object, **options: object) -> int:
        calls.append(self)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return real(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ExportError, match="No space left on device; nothing was changed"):
        exported(pump, tmp_path / "fw", target="m4f")
    assert {f: (tmp_path / "fw" / f).read_bytes() for f in made.files} == before
    assert {p.name for p in tmp_path.iterdir()} == {"fw"}


def test_names_of_channels_cannot_leave_their_comment(pump: Model, tmp_path: Path) -> None:
    gcc = need.program("gcc")
    odd = tuple(Input(name, "*\\ #error */") for name in ("*/ int x;", "a\\", "b??/\n#error"))
    exported(replace(pump, inputs=odd, name="*/ evil"), tmp_path / "fw", name="pump", target="host")
    flags = [*toolchain.STRICT, *toolchain.host_flags(fused=True)]
    subprocess.run([gcc, *flags, "-c", "-o", tmp_path / "o", tmp_path / "fw/pump.c"], check=True)


# ---- resting state, state transfer ---------------------------------------------------------------


def table(path: Path, columns: list[str], rows: np.ndarray) -> Path:
    lines = [",".join(["time", *columns])]
    for k, row in enumerate(rows):
        cells = ["" if np.isnan(v) else f"{v:g}" for v in row]
        lines.append(",".join([f"{1_700_000_000_000 + 50 * k}", *cells]))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_resting_state_is_where_the_network_settles(pump: Model, tmp_path: Path) -> None:
    assert pump.scaler is not None
    rows = pump.scaler.mean + pump.scaler.std * np.random.default_rng(0).normal(size=(200, 3)) * 0.1
    rows[5] = np.nan
    data = table(tmp_path / "normal.csv", [i.name for i in pump.inputs], rows)
    exported(pump, tmp_path / "fw", rest=data, target="host")
    rested = load(tmp_path / "fw" / "pump.safetensors")
    x = (np.nanmedian(rows, axis=0) - pump.scaler.mean) / pump.scaler.std
    stepper = Stepper(rested)
    before = stepper.get_state().h
    stepper.step(x)
    assert np.abs(np.array(before) - np.array(stepper.get_state().h)).max() < 1e-4
    assert np.abs(before).max() > 0


def test_rest_data_that_does_not_do_leaves_nothing(pump: Model, tmp_path: Path) -> None:
    names = [i.name for i in pump.inputs]
    folder = tmp_path / "data"
    folder.mkdir()
    missing = table(folder / "missing.csv", names[:2], np.ones((9, 2)))
    empty = table(folder / "empty.csv", names, np.array([[1.0, np.nan, 1.0]] * 9))
    for data, said in (
        (missing, "no such column"),
        (empty, "has no finite value"),
        (folder / "no.csv", "cannot be read"),
    ):
        with pytest.raises(DataError, match=said):
            exported(pump, tmp_path / "fw", rest=data)
    assert {p.name for p in tmp_path.iterdir()} == {"data"}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_stream_moves_to_the_device_and_back(name: str, tmp_path: Path) -> None:
    need.program("gcc")
    model = DETECTORS[name]
    times, xs, present = stream(model, 900, seed=3)
    here = Detector(model, numeric="F")
    here.run(times[:300], xs[:300], present[:300])
    exported(model, tmp_path / "fw", target="host", name="pump", initial=here.snapshot())
    program = tmp_path / "program"
    host = firmware_export.TARGETS["host"]
    toolchain.build(tmp_path / "fw", "pump", model, host, program, detect=True)
    samples = toolchain.detect_samples(times[300:600], xs[300:600], present[300:600])
    ran = toolchain.run(program, model, host, samples, detect=True)
    expected = here.run(times[300:600], xs[300:600], present[300:600])
    assert ran.answers["score"].tobytes() == expected["score"].tobytes()
    back = Detector(model, numeric="F")
    back.restore(firmware_export.from_device(model, ran.state))
    assert (
        back.run(times[600:], xs[600:], present[600:]).tobytes()
        == here.run(times[600:], xs[600:], present[600:]).tobytes()
    )


def test_a_stream_of_the_daemon_moves_to_the_device(pump: Model) -> None:
    from edge_rnn.demo.pumps import clean_readings
    from edge_rnn.stream.engine import Engine, Group
    from edge_rnn.stream.types import Message

    rows = [list(map(float, r)) for r in clean_readings(60, seed=2)]
    times = [10**9 + 50_000_000 * k for k in range(60)]
    engine = Engine([Group("pumps", pump)])
    engine.feed([Message("pumps", (0, 1, 2), t, r) for t, r in zip(times, rows, strict=True)], times[-1])
    ((_, blob),) = engine.changed()
    here = Detector(pump)
    here.run(times, rows)
    assert firmware_export.to_device(pump, blob) == firmware_export.to_device(pump, here.snapshot())
    for damaged in (blob[:40], blob[:60], blob[:52] + b"x" * (len(blob) - 52)):
        with pytest.raises(SnapshotError):
            firmware_export.to_device(pump, damaged)


def test_a_state_of_another_device_is_refused(pump: Model, tmp_path: Path) -> None:
    state = firmware_export.to_device(pump, Detector(pump).snapshot())
    assert firmware_export.to_device(pump, firmware_export.from_device(pump, state)) == state
    with pytest.raises(SnapshotError, match="expected 304 bytes"):
        firmware_export.from_device(pump, state[:-1])
    with pytest.raises(SnapshotError):
        firmware_export.from_device(pump, b"\xff" * len(state))
    with pytest.raises(SnapshotError):
        exported(pump, tmp_path / "fw", initial=Detector(DETECTORS["plain"]).snapshot())
    rng = np.random.default_rng(0)
    for _ in range(20_000):
        mutant = bytearray(state)
        for _ in range(rng.integers(1, 4)):
            mutant[rng.integers(len(mutant))] = rng.integers(256)
        try:
            back = firmware_export.from_device(pump, bytes(mutant))
        except SnapshotError:
            continue
        assert back[:4] == b"ERDS"


# ---- budget --------------------------------------------------------------------------------------


def test_the_budget_is_in_the_header_the_json_and_the_output(pump: Model, tmp_path: Path, capsys) -> None:
    need.program("arm-none-eabi-gcc")
    need.program("qemu-system-arm")
    words = ["export", str(PUMP), "-o", str(tmp_path / "fw"), "--target", "m4f", "--clock", "64MHz", "--json"]
    assert cli.main(words) == 0
    said = json.loads(capsys.readouterr().out)["budget"]
    assert said == json.loads((tmp_path / "fw/budget.json").read_text())
    header = (tmp_path / "fw/pump.h").read_text("utf-8")
    for key in ("flash_bytes", "ram_bytes", "code_bytes", "macs"):
        assert f"{said[key]:,}" in header
    assert said["flash_bytes"] == said["weight_bytes"] + said["table_bytes"] + said["code_bytes"]
    assert said["step"]["instructions"] < said["detect"]["instructions"]
    low, high = said["step"]["microseconds"]
    assert low == pytest.approx(said["step"]["instructions"] / 64)
    assert low < high
    words = ["export", str(PUMP), "-o", str(tmp_path / "small"), "--target", "m4f", "--flash", "7k"]
    assert cli.main(words) == 78
    assert re.search(r"flash: 8,\d{3} bytes, but only 7,168 given", capsys.readouterr().err)
    assert not (tmp_path / "small").exists()


def test_sizes_of_the_issue_hold(tmp_path: Path) -> None:
    """LSTM 4 -> 32 and a Linear on an M4F: code, state, stack."""
    need.program("arm-none-eabi-gcc")
    for cell, state in (("lstm", 8 * 32 + 16), ("gru", 4 * 32 + 16)):
        model = network(0, [(cell, 32, 0)], [(4, "none")], inputs=4)  # type: ignore[list-item]
        made = firmware_export.export(model, tmp_path / cell, name="m", target="m4f").budget
        assert made.state_bytes <= state
        assert made.step.code_bytes is not None
        assert made.step.code_bytes <= 1229
        assert made.step.stack_bytes is not None
        assert made.step.stack_bytes <= 256
        # Nothing is stored but the weights: biases, one row per gate and unit, the head.
        layer = model.layers[0]
        biases = 4 * (4 if cell == "gru" else layer.w_ih.shape[0] // 32) * 32
        assert made.weight_bytes == 4 * (layer.w_ih.size + layer.w_hh.size + 4 * 32 + 4) + biases


def test_stack_is_the_deepest_chain_of_calls() -> None:
    graph = """\
node: { title: "a.c:f" label: "f\\na.c:1:1\\n16 bytes (static)\\n0 dynamic objects" }
node: { title: "g" label: "g\\na.c:2:1\\n100 bytes (static)\\n0 dynamic objects" }
node: { title: "h" label: "h\\na.c:3:1\\n40 bytes (static)\\n0 dynamic objects" }
edge: { sourcename: "a.c:f" targetname: "h" }
edge: { sourcename: "a.c:f" targetname: "g" }
edge: { sourcename: "h" targetname: "__aeabi_dmul" }
"""
    assert budget.deepest(graph, "f") == 116
    assert budget.deepest(graph, "h") == 40


def test_without_a_compiler_the_budget_says_so(
    pump: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    made = firmware_export.export(pump, tmp_path / "fw", target="m4f")
    assert made.budget.not_measured.startswith("arm-none-eabi-gcc is not installed")
    assert made.budget.code_bytes is None
    assert made.budget.flash_bytes == 4108 + 340


# ---- command line --------------------------------------------------------------------------------


def test_check_compares_every_verdict_with_the_runtime(tmp_path: Path, capsys) -> None:
    need.program("arm-none-eabi-gcc")
    need.program("qemu-system-arm")
    from edge_rnn.demo.pumps import clean_readings

    rows = np.array([list(r) for r in clean_readings(400, seed=1)], float)
    rows[250:300, 0] *= 3
    rows[40, 1] = np.nan
    data = table(tmp_path / "pump.csv", ["vibration", "temperature", "pressure"], rows)
    words = ["export", str(PUMP), "-o", str(tmp_path / "fw"), "--target", "m4f", "--no-measure"]
    assert cli.main([*words, "--check", str(data)]) == 0
    said = capsys.readouterr().out
    assert "400 samples on Arm Cortex-M4F (emulated)" in said
    assert "every bit is right" in said


def test_the_device_says_what_replay_says(pump: Model, tmp_path: Path) -> None:
    """A recording with holes and pauses through the daemon's engine, and through the exported code."""
    need.program("gcc")
    from edge_rnn.commands.replay_run import replay
    from edge_rnn.demo.pumps import clean_readings
    from edge_rnn.files.readings import read_table
    from firmware_export.recorded import held

    rows = np.array([list(r) for r in clean_readings(600, seed=2)], float)
    rows[250:300, 0] *= 3
    rng = np.random.default_rng(0)
    rows[rng.random(rows.shape) < 0.02] = np.nan
    rows[400:420, 1] = rows[400, 1]
    rows[480:482] = np.nan
    names = [i.name for i in pump.inputs]
    recorded = read_table(table(tmp_path / "pump.csv", names, rows), channels=names)
    said = replay(pump, recorded)
    exported(pump, tmp_path / "fw", target="host")
    host = firmware_export.TARGETS["host"]
    toolchain.build(tmp_path / "fw", "pump", pump, host, tmp_path / "program", detect=True)
    xs, present = held(recorded.values)
    some = present.any(axis=1)
    samples = toolchain.detect_samples(recorded.times_ns[some], xs[some], present[some])
    answers = toolchain.run(tmp_path / "program", pump, host, samples, detect=True).answers
    assert said.judged.tolist() == some.tolist()
    assert answers["score"].tobytes() == said.score[some].tobytes()
    assert answers["status"].tolist() == said.status[some].tolist()
    assert answers["alarm"].tolist() == said.alarm[some].tolist()
    assert said.alarm.any()
    assert len(np.unique(said.status)) >= 3


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--target", "z80"], 78, "target: expected one of"),
        (["--name", "a b"], 78, "C identifier"),
        (["--initial", "/does/not/exist"], 78, "cannot be read"),
        (["--rest", "/does/not/exist.csv"], 65, "cannot be read"),
    ],
)
def test_the_command_ends_with_one_line(
    words: list[str], code: int, said: str, tmp_path: Path, capsys
) -> None:
    assert cli.main(["export", str(PUMP), "-o", str(tmp_path / "fw"), *words]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_module_is_the_same_command(tmp_path: Path) -> None:
    import sys

    words = [sys.executable, "-m", "firmware_export", str(PUMP), "-o", str(tmp_path / "fw"), "--no-measure"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=need.ROOT)
    assert done.returncode == 0, done.stderr
    assert "flash" in done.stdout
