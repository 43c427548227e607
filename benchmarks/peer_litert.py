"""A LiteRT model file of one LSTM or GRU step, made of unfused operators with LiteRT's own schema.

A fused kernel of LiteRT may differ in speed; none takes one reading with states as plain inputs and outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_rnn import Model


class _Graph:
    """Tensors and operators in the order they are added; `x @ W + b` is `dense`."""

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        self.buffers = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[int] = []

    def tensor(self, shape: tuple[int, ...], value: np.ndarray | None = None) -> int:
        tensor = self.schema.TensorT()
        tensor.shape, tensor.name = list(shape), f"t{len(self.tensors)}".encode()
        tensor.type, tensor.buffer = self.schema.TensorType.FLOAT32, 0
        if value is not None:
            if value.dtype == np.int32:
                tensor.type = self.schema.TensorType.INT32
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
            self.buffers.append(buffer)
            tensor.buffer = len(self.buffers) - 1
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add(self, name: str, inputs: list[int], outputs: list[int], options: str = "", **fields: int) -> None:
        code = getattr(self.schema.BuiltinOperator, name)
        if code not in self.codes:
            self.codes.append(code)
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = self.codes.index(code), inputs, outputs
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, f"{options}T")()
            for key, value in fields.items():
                setattr(operator.builtinOptions, key, value)
        self.operators.append(operator)

    def unary(self, name: str, a: int, size: int) -> int:
        out = self.tensor((1, size))
        self.add(name, [a], [out])
        return out

    def binary(self, name: str, a: int, b: int, size: int) -> int:
        out = self.tensor((1, size))
        self.add(name.upper(), [a, b], [out], f"{name}Options")
        return out

    def dense(self, x: int, weight: np.ndarray, bias: np.ndarray) -> int:
        out = self.tensor((1, len(weight)))
        parts = [x, self.tensor(weight.shape, weight), self.tensor(bias.shape, bias)]
        self.add("FULLY_CONNECTED", parts, [out], "FullyConnectedOptions")
        return out

    def split(self, x: int, parts: int, size: int) -> list[int]:
        outs = [self.tensor((1, size)) for _ in range(parts)]
        axis = self.tensor((), np.array(1, np.int32))
        self.add("SPLIT", [axis, x], outs, "SplitOptions", numSplits=parts)
        return outs


def litert_file(model: Model, schema: Any, flatbuffers: Any) -> bytes:
    """Inputs x, then h (and c) of each layer; outputs y, then the new states in the same order."""
    graph = _Graph(schema)
    x = graph.tensor((1, model.input_size))
    inputs, outputs = [x], []
    for layer in model.layers:
        size = layer.hidden_size
        h = graph.tensor((1, size))
        inputs.append(h)
        from_x, from_h = graph.dense(x, layer.w_ih, layer.b_ih), graph.dense(h, layer.w_hh, layer.b_hh)
        if layer.cell == "lstm":
            c = graph.tensor((1, size))
            inputs.append(c)
            i, f, g, o = graph.split(graph.binary("Add", from_x, from_h, 4 * size), 4, size)
            i, f, o = (graph.unary("LOGISTIC", gate, size) for gate in (i, f, o))
            new = graph.binary("Mul", i, graph.unary("TANH", g, size), size)
            c = graph.binary("Add", graph.binary("Mul", f, c, size), new, size)
            x = graph.binary("Mul", o, graph.unary("TANH", c, size), size)
            outputs += [x, c]
        else:
            (rx, zx, nx), (rh, zh, nh) = graph.split(from_x, 3, size), graph.split(from_h, 3, size)
            r = graph.unary("LOGISTIC", graph.binary("Add", rx, rh, size), size)
            z = graph.unary("LOGISTIC", graph.binary("Add", zx, zh, size), size)
            n = graph.unary("TANH", graph.binary("Add", nx, graph.binary("Mul", r, nh, size), size), size)
            x = graph.binary("Add", n, graph.binary("Mul", z, graph.binary("Sub", h, n, size), size), size)
            outputs.append(x)
    y = graph.dense(x, model.head[0].weight, model.head[0].bias)
    subgraph, whole = schema.SubGraphT(), schema.ModelT()
    subgraph.tensors, subgraph.operators = graph.tensors, graph.operators
    subgraph.inputs, subgraph.outputs = inputs, [y, *outputs]
    for code in graph.codes:
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
        whole.operatorCodes = [*(whole.operatorCodes or []), entry]
    whole.version, whole.subgraphs, whole.buffers = 3, [subgraph], graph.buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(whole.Pack(builder), b"TFL3")
    return bytes(builder.Output())
