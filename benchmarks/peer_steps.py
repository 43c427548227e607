"""One reading with carried state, in what users would pick instead: a step function for each peer.

Every factory takes a `Model` (LSTM or GRU layers of one size, one Linear) and gives a function x (I,) float32
-> y, an array of O numbers. It raises `AbsentError` where the peer is not installed here.
Each peer is given its best ordinary way: one thread, no gradients, buffers kept, states handed over without
a copy where its interface allows it.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numba
import numpy as np

from benchmarks.bench_step import numba_plain_loops, numpy_by_hand
from benchmarks.peer_litert import litert_file
from edge_rnn import Model, Stepper

Step = Callable[[np.ndarray], Any]
Run = Callable[[np.ndarray], np.ndarray]
SOURCE = Path(__file__).with_name("peers.c")


class AbsentError(Exception):
    """A peer that cannot take part here; the message is the reason."""


def part(name: str) -> Any:
    """An optional module.

    Raises:
        AbsentError: it is not installed, or does not load on this machine.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise AbsentError(f"{package} cannot be imported ({str(error)[:80]})") from None


def ours(model: Model) -> Step:
    return Stepper(model).step


# --- Python and C ----------------------------------------------------------------------------------------


@numba.njit
def plain_gru(w_ih, w_hh, b_ih, b_hh, x, h, zx, zh):
    size = h.shape[0]
    for row in range(3 * size):
        total = b_ih[row]
        for j in range(x.shape[0]):
            total += w_ih[row, j] * x[j]
        zx[row] = total
        total = b_hh[row]
        for k in range(size):
            total += w_hh[row, k] * h[k]
        zh[row] = total
    for u in range(size):
        r = 1 / (1 + np.exp(-(zx[u] + zh[u])))
        z = 1 / (1 + np.exp(-(zx[size + u] + zh[size + u])))
        n = np.tanh(zx[2 * size + u] + r * zh[2 * size + u])
        h[u] = (1 - z) * n + z * h[u]


def plain_numba(model: Model) -> Step:
    """Loops over arrays in Numba, the head in NumPy."""
    if model.layers[0].cell == "lstm":
        return numba_plain_loops(model)
    state = [[np.zeros(n * r.hidden_size, np.float32) for n in (1, 3, 3)] for r in model.layers]
    linear = model.head[0]

    def step(x: np.ndarray) -> np.ndarray:
        for layer, (h, zx, zh) in zip(model.layers, state, strict=True):
            plain_gru(layer.w_ih, layer.w_hh, layer.b_ih, layer.b_hh, x, h, zx, zh)
            x = h
        return linear.weight @ x + linear.bias

    return step


def plain_c(model: Model, *flags: str) -> Run:
    """Plain C, `-O3` and `flags` for this machine, T readings in one call; (T, I) -> (T, O)."""
    compiler = next((c for c in ("gcc", "clang", "cc") if shutil.which(c)), None)
    if compiler is None:
        raise AbsentError("no C compiler: install gcc")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "plain.so"
        native = "-mcpu=native" if platform.machine() in {"aarch64", "arm64"} else "-march=native"
        options = ["-O3", native, *flags, "-shared", "-fPIC", "-o", str(target)]
        command = [compiler, *options, str(SOURCE), "-lm"]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            raise AbsentError(f"{compiler} failed: {built.stderr.strip().splitlines()[-1][:80]}")
        call = ctypes.CDLL(str(target)).run
    call.restype = None
    first, linear = model.layers[0], model.head[0]
    size = first.hidden_size
    kept = [
        array
        for layer in model.layers
        for array in (
            *map(np.ascontiguousarray, (layer.w_ih, layer.w_hh, layer.b_ih, layer.b_hh)),
            *(np.zeros(size, np.float32) for _ in range(2)),
        )
    ]
    tables = (ctypes.c_void_p * len(kept))(*(array.ctypes.data for array in kept))
    scratch, w, b = np.zeros(8 * size, np.float32), *map(np.ascontiguousarray, (linear.weight, linear.bias))
    numbers = (
        ctypes.c_int(first.cell == "lstm"),
        *(ctypes.c_size_t(n) for n in (len(model.layers), model.input_size, size, model.output_size)),
    )

    def address(array: np.ndarray) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    def run(xs: np.ndarray, _kept: object = kept) -> np.ndarray:
        ys = np.empty((len(xs), model.output_size), np.float32)
        ends = (address(xs), address(ys), address(scratch), ctypes.c_size_t(len(xs)))
        call(*numbers, tables, address(w), address(b), *ends)
        return ys

    return run


# --- PyTorch ---------------------------------------------------------------------------------------------


def torch_eager(model: Model) -> Step:
    """`nn.LSTM` or `nn.GRU` and `nn.Linear`, one reading as a sequence of length 1."""
    torch = part("torch")
    torch.set_num_threads(1)
    first = model.layers[0]
    kind = torch.nn.LSTM if first.cell == "lstm" else torch.nn.GRU
    net = kind(model.input_size, first.hidden_size, len(model.layers)).eval()
    head = torch_linear(torch, model)
    with torch.no_grad():
        for i, layer in enumerate(model.layers):
            for name in ("ih", "hh"):
                getattr(net, f"weight_{name}_l{i}").copy_(
                    torch.from_numpy(getattr(layer, f"w_{name}").copy())
                )
                getattr(net, f"bias_{name}_l{i}").copy_(torch.from_numpy(getattr(layer, f"b_{name}").copy()))
    state = None

    # Without gradients from the start, which costs less than a context around every call.
    net.requires_grad_(False)  # noqa: FBT003

    def step(x: np.ndarray) -> Any:
        nonlocal state
        y, state = net(torch.from_numpy(x)[None, None], state)
        return head(y[0, 0]).numpy()

    return step


def torch_linear(torch: Any, model: Model) -> Any:
    head = torch.nn.Linear(model.head[0].input_size, model.output_size).eval()
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(model.head[0].weight.copy()))
        head.bias.copy_(torch.from_numpy(model.head[0].bias.copy()))
    return head.requires_grad_(False)  # noqa: FBT003


def torch_traced(model: Model) -> Step:
    """`LSTMCell` or `GRUCell`, `torch.jit.trace` and `freeze`: PyTorch's fastest ordinary way."""
    torch = part("torch")
    torch.set_num_threads(1)
    lstm = model.layers[0].cell == "lstm"
    kind = torch.nn.LSTMCell if lstm else torch.nn.GRUCell

    class Network(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.cells = torch.nn.ModuleList([kind(r.input_size, r.hidden_size) for r in model.layers])
            self.head = torch_linear(torch, model)

        def forward(self, x: Any, *state: Any) -> Any:
            after = []
            for i, cell in enumerate(self.cells):
                hc = cell(x, (state[2 * i], state[2 * i + 1]) if lstm else state[i])
                x = hc[0] if lstm else hc
                after += list(hc) if lstm else [hc]
            return (self.head(x), *after)

    net = Network().eval()
    with torch.no_grad():
        for cell, layer in zip(net.cells, model.layers, strict=True):
            for name in ("ih", "hh"):
                getattr(cell, f"weight_{name}").copy_(torch.from_numpy(getattr(layer, f"w_{name}").copy()))
                getattr(cell, f"bias_{name}").copy_(torch.from_numpy(getattr(layer, f"b_{name}").copy()))
    sizes = [r.hidden_size for r in model.layers for _ in range(2 if lstm else 1)]
    state = tuple(torch.zeros(1, n) for n in sizes)
    net.requires_grad_(False)  # noqa: FBT003
    with torch.no_grad(), warnings.catch_warnings():
        # Deprecated, and still the fastest way for one small step.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.freeze(torch.jit.trace(net, (torch.zeros(1, model.input_size), *state)))

    def step(x: np.ndarray) -> Any:
        nonlocal state
        y, *state = traced(torch.from_numpy(x)[None], *state)
        return y[0].numpy()

    return step


# --- ONNX ------------------------------------------------------------------------------------------------


def onnx_bytes(model: Model) -> bytes:
    """The network as ONNX operators, one step: x, h0, c0, ... -> y, h0_out, c0_out, ..."""
    onnx = part("onnx")
    helper, made = onnx.helper, []
    nodes, inputs, outputs = [], [("x", [1, 1, model.input_size])], [("y", [1, model.output_size])]

    def constant(name: str, value: np.ndarray) -> str:
        made.append(onnx.numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    made.append(onnx.numpy_helper.from_array(np.array([0], np.int64), "axis"))
    x = "x"
    for i, layer in enumerate(model.layers):
        lstm, size = layer.cell == "lstm", layer.hidden_size
        # PyTorch's i f g o to ONNX' i o f c, and r z n to z r h.
        order = (0, 3, 1, 2) if lstm else (1, 0, 2)

        def arranged(value: np.ndarray, order: tuple[int, ...] = order) -> np.ndarray:
            blocks = np.split(value, len(order))
            return np.concatenate([blocks[k] for k in order])

        w = constant(f"w{i}", arranged(layer.w_ih)[None])
        r = constant(f"r{i}", arranged(layer.w_hh)[None])
        b = constant(f"b{i}", np.concatenate([arranged(layer.b_ih), arranged(layer.b_hh)])[None])
        states = [f"h{i}", f"c{i}"] if lstm else [f"h{i}"]
        for state in states:
            inputs.append((state, [1, 1, size]))
            outputs.append((f"{state}_out", [1, 1, size]))
        own = {} if lstm else {"linear_before_reset": 1}
        after = [f"{state}_out" for state in states]
        nodes.append(
            helper.make_node(
                "LSTM" if lstm else "GRU", [x, w, r, b, "", *states], ["", *after], hidden_size=size, **own
            )
        )
        x = after[0]
    nodes.append(helper.make_node("Squeeze", [x, "axis"], ["flat"]))
    weight, bias = constant("weight", model.head[0].weight), constant("bias", model.head[0].bias)
    nodes.append(helper.make_node("Gemm", ["flat", weight, bias], ["y"], transB=1))

    def values(named: list[tuple[str, list[int]]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in named]

    graph = helper.make_graph(nodes, "step", values(inputs), values(outputs), made)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(whole)
    content: bytes = whole.SerializeToString()
    return content


def state_names(model: Model) -> list[tuple[str, int]]:
    return [
        (f"{kind}{i}", layer.hidden_size)
        for i, layer in enumerate(model.layers)
        for kind in ("hc" if layer.cell == "lstm" else "h")
    ]


def ort_session(model: Model) -> Any:
    ort = part("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    return ort.InferenceSession(onnx_bytes(model), options, providers=["CPUExecutionProvider"])


def ort_run(model: Model) -> Step:
    """ONNX Runtime, `session.run` with a dict."""
    session, names = ort_session(model), state_names(model)
    feed = {name: np.zeros((1, 1, size), np.float32) for name, size in names}
    wanted = ["y", *(f"{name}_out" for name, _ in names)]

    def step(x: np.ndarray) -> Any:
        feed["x"] = x[None, None]
        y, *states = session.run(wanted, feed)
        for (name, _), state in zip(names, states, strict=True):
            feed[name] = state
        return y[0]

    return step


def ort_bound(model: Model) -> Step:
    """ONNX Runtime with IO binding: all buffers bound once, two sets of states that take turns."""
    session, names = ort_session(model), state_names(model)
    ort = part("onnxruntime")
    x, y = np.zeros((1, 1, model.input_size), np.float32), np.zeros((1, model.output_size), np.float32)
    states = [
        [ort.OrtValue.ortvalue_from_numpy(np.zeros((1, 1, size), np.float32)) for _, size in names]
        for _ in range(2)
    ]
    bindings = []
    for before, after in (states, states[::-1]):
        binding = session.io_binding()
        binding.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
        binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
        for (name, _), old, new in zip(names, before, after, strict=True):
            binding.bind_ortvalue_input(name, old)
            binding.bind_ortvalue_output(f"{name}_out", new)
        bindings.append(binding)
    row, out, turn = x[0, 0], y[0], 0

    # The bindings hold addresses only.
    def step(reading: np.ndarray, _kept: object = (x, y, states)) -> Any:
        nonlocal turn
        row[:] = reading
        session.run_with_iobinding(bindings[turn])
        turn = 1 - turn
        return out

    return step


def openvino(model: Model) -> Step:
    """OpenVINO on the CPU, float32, tuned for latency, with two requests whose states take turns."""
    ov = part("openvino")
    core = ov.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(onnx_bytes(model)), "CPU", settings)
    names = state_names(model)
    x, y = np.zeros((1, 1, model.input_size), np.float32), np.zeros((1, model.output_size), np.float32)
    states = [[np.zeros((1, 1, size), np.float32) for _, size in names] for _ in range(2)]
    requests = []
    for before, after in (states, states[::-1]):
        request = compiled.create_infer_request()
        request.set_tensor("x", ov.Tensor(x, shared_memory=True))
        request.set_tensor("y", ov.Tensor(y, shared_memory=True))
        for (name, _), old, new in zip(names, before, after, strict=True):
            request.set_tensor(name, ov.Tensor(old, shared_memory=True))
            request.set_tensor(f"{name}_out", ov.Tensor(new, shared_memory=True))
        requests.append(request)
    row, out, turn = x[0, 0], y[0], 0

    def step(reading: np.ndarray, _kept: object = (x, y, states, compiled)) -> Any:
        nonlocal turn
        row[:] = reading
        requests[turn].infer()
        turn = 1 - turn
        return out

    return step


def litert_interpreter(model: Model) -> Any:
    interpreters = part("ai_edge_litert.interpreter")
    schema, builders = part("ai_edge_litert.schema_py_generated"), part("flatbuffers")
    content = litert_file(model, schema, builders)
    interpreter = interpreters.Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def litert(model: Model) -> Step:
    """LiteRT (TensorFlow Lite) through its public calls, the model built of unfused operators."""
    interpreter = litert_interpreter(model)
    x, *before = (d["index"] for d in interpreter.get_input_details())
    y, *after = (d["index"] for d in interpreter.get_output_details())
    pairs = list(zip(before, after, strict=True))
    row = np.zeros((1, model.input_size), np.float32)
    for index, (_, size) in zip(before, state_names(model), strict=True):
        interpreter.set_tensor(index, np.zeros((1, size), np.float32))

    def step(reading: np.ndarray) -> Any:
        row[0] = reading
        interpreter.set_tensor(x, row)
        interpreter.invoke()
        for old, new in pairs:
            interpreter.set_tensor(old, interpreter.get_tensor(new))
        return interpreter.get_tensor(y)[0]

    return step


def litert_shared(model: Model) -> Step:
    """LiteRT with arrays kept on its memory, which the public `invoke` refuses: the call below it is made."""
    interpreter = litert_interpreter(model)
    ins, outs = (
        [interpreter.tensor(d["index"])() for d in details]
        for details in (interpreter.get_input_details(), interpreter.get_output_details())
    )
    for state in ins:
        state[...] = 0
    row, y, pairs = ins[0][0], outs[0][0], list(zip(ins[1:], outs[1:], strict=True))
    invoke = interpreter._interpreter.Invoke

    # Only the public object keeps the model's bytes.
    def step(reading: np.ndarray, _kept: object = interpreter) -> Any:
        row[:] = reading
        invoke()
        for old, new in pairs:
            old[:] = new
        return y

    return step


STEPS: dict[str, Callable[[Model], Step]] = {
    "edge-rnn step": ours,
    "LiteRT": litert,
    "LiteRT, private call": litert_shared,
    "ONNX Runtime, IO binding": ort_bound,
    "ONNX Runtime, run": ort_run,
    "NumPy by hand": numpy_by_hand,
    "Numba, plain loops": plain_numba,
    "OpenVINO": openvino,
    "PyTorch, traced": torch_traced,
    "PyTorch, eager": torch_eager,
}
RUNS: dict[str, Callable[[Model], Run]] = {
    "edge-rnn run, in one call": lambda model: Stepper(model).run,
    "C -O3, in one call": plain_c,
    "C -O3 -ffast-math, in one call": lambda model: plain_c(model, "-ffast-math"),
}
