"""From names and shapes to a model: common cases need no word, others an error that names it."""

from __future__ import annotations

import numpy as np
import pytest

import edge_rnn
from edge_rnn.core.model import Input
from edge_rnn.core.reference import Reference
from edge_rnn.errors import ModelFileError
from edge_rnn.files.state_dict import load_state_dict
from tests.support import need

GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def recurrent(
    prefix: str, kind: str, inputs: int, hidden: int, *, layers: int = 1, cell: bool = False,
    bias: bool = True, projection: int = 0, seed: int = 0,
) -> dict[str, np.ndarray]:  # fmt: skip
    """A recurrent module's tensors in PyTorch's names; random, so that none can be mistaken for another."""
    rng, rows, out = np.random.default_rng(seed), GATES[kind] * hidden, projection or hidden
    tensors = {}
    for i in range(layers):
        end = "" if cell else f"_l{i}"
        tensors[f"{prefix}weight_ih{end}"] = rng.normal(size=(rows, inputs if i == 0 else out))
        tensors[f"{prefix}weight_hh{end}"] = rng.normal(size=(rows, out))
        if bias:
            tensors[f"{prefix}bias_ih{end}"] = rng.normal(size=rows)
            tensors[f"{prefix}bias_hh{end}"] = rng.normal(size=rows)
        if projection:
            tensors[f"{prefix}weight_hr{end}"] = rng.normal(size=(projection, hidden))
    return {k: v.astype(np.float32) for k, v in tensors.items()}


def linear(prefix: str, inputs: int, outputs: int, *, bias: bool = True) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(99)
    tensors = {f"{prefix}.weight": rng.normal(size=(outputs, inputs))}
    if bias:
        tensors[f"{prefix}.bias"] = rng.normal(size=outputs)
    return {k: v.astype(np.float32) for k, v in tensors.items()}


@pytest.mark.parametrize("prefix", ["", "rnn.", "lstm.", "module.lstm.", "encoder.rnn.", "_orig_mod.a.b.c."])
@pytest.mark.parametrize(("kind", "cell"), [("lstm", "lstm"), ("gru", "gru"), ("rnn", "rnn_tanh")])
@pytest.mark.parametrize("bias", [True, False])
def test_cell_sizes_and_layers_follow_from_names_and_shapes(prefix, kind, cell, bias) -> None:
    tensors = recurrent(prefix, kind, 5, 7, layers=3, bias=bias)
    model = load_state_dict(tensors)
    assert [(r.cell, r.input_size, r.hidden_size) for r in model.layers] == [
        (cell, 5, 7), (cell, 7, 7), (cell, 7, 7),
    ]  # fmt: skip
    assert model.head == ()
    for i, layer in enumerate(model.layers):
        assert np.array_equal(layer.w_ih, tensors[f"{prefix}weight_ih_l{i}"])
        assert np.array_equal(layer.w_hh, tensors[f"{prefix}weight_hh_l{i}"])
        assert (layer.b_ih is not None) == bias
        if layer.b_ih is not None and layer.b_hh is not None:
            assert np.array_equal(layer.b_ih, tensors[f"{prefix}bias_ih_l{i}"])
            assert np.array_equal(layer.b_hh, tensors[f"{prefix}bias_hh_l{i}"])


def test_a_projection_changes_what_the_gates_are_counted_by() -> None:
    model = load_state_dict(recurrent("lstm.", "lstm", 3, 8, layers=2, projection=2))
    assert [(r.cell, r.input_size, r.hidden_size, r.output_size) for r in model.layers] == [
        ("lstm", 3, 8, 2), ("lstm", 2, 8, 2),
    ]  # fmt: skip


def test_cells_are_stacked_by_their_numbers_and_sizes() -> None:
    tensors = recurrent("cells.10.", "gru", 4, 4, cell=True, seed=1) | recurrent(
        "cells.9.", "gru", 4, 4, cell=True
    )
    model = load_state_dict(tensors)
    assert np.array_equal(model.layers[0].w_ih, tensors["cells.9.weight_ih"])
    assert np.array_equal(model.layers[1].w_ih, tensors["cells.10.weight_ih"])


def test_two_modules_chain_where_only_one_order_fits() -> None:
    tensors = recurrent("decoder.", "gru", 6, 4) | recurrent("encoder.", "lstm", 3, 6)
    model = load_state_dict(tensors)
    assert [(r.cell, r.input_size, r.output_size) for r in model.layers] == [("lstm", 3, 6), ("gru", 6, 4)]


def test_two_orders_that_fit_are_a_question() -> None:
    tensors = recurrent("down.", "lstm", 4, 4) | recurrent("up.", "lstm", 4, 4, seed=1)
    with pytest.raises(ModelFileError, match=r"several recurrent modules, 'down' \(4 -> 4\).*--recurrent"):
        load_state_dict(tensors)
    model = load_state_dict(tensors, recurrent=["up", "down"])
    assert np.array_equal(model.layers[0].w_ih, tensors["up.weight_ih_l0"])
    alone = load_state_dict(tensors, recurrent=["up"], ignore=["down"])
    assert len(alone.layers) == 1


def test_modules_that_do_not_chain_are_a_question() -> None:
    tensors = recurrent("a.", "lstm", 3, 5) | recurrent("b.", "lstm", 3, 5)
    with pytest.raises(ModelFileError, match="not exactly one order"):
        load_state_dict(tensors)


def test_a_single_linear_layer_that_fits_is_the_head() -> None:
    tensors = recurrent("lstm.", "lstm", 3, 5) | linear("fc", 5, 2)
    model = load_state_dict(tensors, name="press", inputs=["a", Input("b", "bar"), "c"])
    assert [(h.input_size, h.output_size, h.activation) for h in model.head] == [(5, 2, "none")]
    assert model.head[0].bias is not None
    assert model.inputs == (Input("a"), Input("b", "bar"), Input("c"))
    assert model.name == "press"
    assert (
        load_state_dict(recurrent("lstm.", "lstm", 3, 5) | linear("fc", 5, 2, bias=False)).head[0].bias
        is None
    )


def test_a_linear_layer_that_may_feed_the_recurrent_one_is_a_question() -> None:
    lstm = recurrent("lstm.", "lstm", 6, 6)
    with pytest.raises(ModelFileError, match=r"'fc' \(6 -> 6\) looks like .* input layer.* --head fc:none"):
        load_state_dict(linear("fc", 6, 6) | lstm)
    table = linear("table", 6, 30, bias=False)
    with pytest.raises(ModelFileError, match=r"'table' \(6 -> 30\) looks like an embedding"):
        load_state_dict(table | lstm)
    with pytest.raises(ModelFileError, match=r"'table' \(6 -> 30\) looks like an embedding"):
        load_state_dict(dict(sorted((lstm | table).items())))
    assert load_state_dict(table | lstm, head=[("table", "none")]).output_size == 30
    assert load_state_dict(lstm | table).output_size == 30
    # A forecaster, as PyTorch and as a sorted file list it; a head defined first that can feed nothing.
    forecaster = recurrent("gru.", "gru", 2, 6) | linear("fc", 6, 2)
    assert len(load_state_dict(forecaster).head) == 1
    assert len(load_state_dict(dict(sorted(forecaster.items()))).head) == 1
    assert len(load_state_dict(linear("fc", 6, 4) | recurrent("gru.", "gru", 2, 6)).head) == 1


@pytest.mark.parametrize("argument", ["head", "recurrent", "inputs", "ignore"])
def test_a_text_where_a_list_belongs_is_said(argument: str) -> None:
    with pytest.raises(ModelFileError, match=rf"{argument}: expected a list, got the text 'abc'"):
        load_state_dict(recurrent("lstm.", "lstm", 3, 5), **{argument: "abc"})


def test_the_order_and_activations_of_several_linear_layers_are_asked_for() -> None:
    tensors = recurrent("net.lstm.", "lstm", 3, 5) | linear("net.fc1", 5, 4) | linear("net.fc2", 4, 2)
    with pytest.raises(ModelFileError, match=r"--head net\.fc1:relu,net\.fc2:none or head=\[\(\"net"):
        load_state_dict(tensors)
    model = load_state_dict(tensors, head=[("fc1", "relu"), ("net.fc2", "softmax")])
    assert [(h.output_size, h.activation) for h in model.head] == [(4, "relu"), (2, "softmax")]
    with pytest.raises(ModelFileError, match=r"head\[0\]: expected 5 inputs .* got 4"):
        load_state_dict(tensors, head=[("fc2", "none"), ("fc1", "none")])
    with pytest.raises(
        ModelFileError, match=r"head: no such module 'fc3'; the file has 'net\.fc1', 'net\.fc2'"
    ):
        load_state_dict(tensors, head=[("fc3", "none")])
    with pytest.raises(ModelFileError, match=r"does not have: 'net\.fc2\.weight', 'net\.fc2\.bias'"):
        load_state_dict(tensors, head=[("fc1", "none")])


def test_one_gate_cells_are_tanh_unless_said_otherwise() -> None:
    tensors = recurrent("rnn.", "rnn", 3, 5)
    assert load_state_dict(tensors).layers[0].cell == "rnn_tanh"
    assert load_state_dict(tensors, cell="rnn_relu").layers[0].cell == "rnn_relu"
    with pytest.raises(ModelFileError, match="cell: gru was asked for, but the shapes say rnn_tanh"):
        load_state_dict(tensors, cell="gru")
    with pytest.raises(ModelFileError, match="cell: expected one of"):
        load_state_dict(tensors, cell="tcn")  # type: ignore[arg-type]


BASE = recurrent("lstm.", "lstm", 3, 5)


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({}, "no recurrent layer found"),
        (linear("fc", 3, 2), "no recurrent layer found"),
        (BASE | {"lstm.weight_ih_l0_reverse": BASE["lstm.weight_ih_l0"]}, "future.*bidirectional=False"),
        (BASE | {"embedding.weight": np.ones((9, 5))}, "looks like an embedding"),
        (BASE | linear("before", 9, 3), r"'before' \(9 -> 3\) does not fit .* gives 5"),
        (BASE | {"conv.weight": np.ones((2, 3, 3))}, r"does not have: 'conv\.weight'; .*--ignore conv"),
        (BASE | {"norm.weight": np.ones(5), "norm.num_batches_tracked": np.array(3)}, "'norm.weight'"),
        (BASE | {"attention.in_proj_weight": np.ones((15, 5))}, "in_proj_weight"),
        ({k: v for k, v in BASE.items() if "hh_l0" not in k}, "weight_hh is missing"),
        ({k: v for k, v in BASE.items() if "bias_hh" not in k}, "b_ih, b_hh: expected both or neither"),
        ({k.replace("_l0", "_l1"): v for k, v in BASE.items()}, r"layers \[1\], expected 0 to 0"),
        (BASE | {"lstm.weight_hh_l0": np.ones((20, 7))}, "20 gate rows over 7 hidden units"),
        (BASE | {"lstm.weight_hh_l0": np.ones((20, 10))}, "20 gate rows over 10 hidden units"),
        (BASE | {"lstm.bias_ih_l0": np.ones(19)}, r"b_ih: expected shape \(20,\), got \(19,\)"),
        (BASE | {"lstm.weight_ih_l0": np.ones((20, 3), np.int8)}, "int8; a quantised model"),
        (BASE | {"lstm.weight_ih_l0": np.full((20, 3), np.inf)}, r"got inf at index \(0, 0\)"),
        (BASE | {"lstm.weight_ih_l0": np.full((20, 3), 1e39)}, "expected finite"),
        (BASE | {"lstm.weight_ih_l0": np.ones(20)}, "expected matrices"),
        (BASE | {"lstm.weight_hh_l0": np.ones((20, 0))}, "none of them empty"),
        (BASE | {"lstm.weight_hr_l0": np.ones((5, 5))}, "proj_size must be smaller"),
        (recurrent("gru.", "gru", 3, 4) | {"gru.weight_hr_l0": np.ones((2, 4))}, "only an lstm has"),
        (BASE | {"lstm.weight_ih_l00": BASE["lstm.weight_ih_l0"]}, "comes twice"),
        (BASE | {"x": object()}, "'x'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line_that_says_what_to_do(tensors, expected: str) -> None:
    with pytest.raises(ModelFileError, match=expected) as caught:
        load_state_dict(tensors, where="press.pt")
    assert str(caught.value).startswith("press.pt: ")
    assert "\n" not in str(caught.value)


def test_ignored_tensors_are_named_and_typos_in_them_noticed() -> None:
    tensors = BASE | {"norm.weight": np.ones(5), "norm.bias": np.ones(5), "extra": np.ones(1)}
    assert load_state_dict(tensors, ignore=["norm", "extra"]).head == ()
    with pytest.raises(ModelFileError, match="ignore: no tensor or module is called 'nrm'"):
        load_state_dict(tensors, ignore=["norm", "extra", "nrm"])


def test_names_from_a_file_cannot_break_a_message() -> None:
    with pytest.raises(ModelFileError) as caught:
        load_state_dict(BASE | {"evil\n\x1b[31m.weight": np.ones((1, 5)), "b\r.weight": np.ones((1, 5))})
    assert str(caught.value).isprintable()


def test_more_modules_than_can_be_tried_end_with_a_question() -> None:
    tensors: dict[str, np.ndarray] = {}
    for i in range(40):
        tensors |= recurrent(chr(97 + i % 26) * (1 + i // 26) + ".", "rnn", 2, 2, seed=i)
    with pytest.raises(ModelFileError, match="several recurrent modules"):
        load_state_dict(tensors)


# --- against PyTorch ---


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "projected", "relu", "cells", "two"])
def test_the_model_computes_what_the_module_computed(kind: str) -> None:
    torch = need.torch()
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if kind == "cells":
                self.cells = nn.ModuleList([nn.LSTMCell(3, 6), nn.LSTMCell(6, 6)])
            elif kind == "two":
                self.bottom, self.top = nn.LSTM(3, 7), nn.GRU(7, 6)
            else:
                make = {
                    "relu": lambda: nn.RNN(3, 6, nonlinearity="relu"),
                    "projected": lambda: nn.LSTM(3, 9, 2, proj_size=6),
                }
                self.rnn = make.get(kind, lambda: getattr(nn, kind)(3, 6, num_layers=2))()
            self.fc = nn.Linear(6, 2)

        def forward(self, x):
            if kind == "cells":
                states, ys = [None, None], []
                for row in x:
                    signal = row[None]
                    for i, cell in enumerate(self.cells):
                        states[i] = cell(signal, states[i])
                        signal = states[i][0]
                    ys.append(signal[0])
                return self.fc(torch.stack(ys))
            if kind == "two":
                return self.fc(self.top(self.bottom(x)[0])[0])
            return self.fc(self.rnn(x)[0])

    torch.manual_seed(1)
    net = Net().double()
    x = torch.randn(20, 3, dtype=torch.float64)
    expected = net(x).detach().numpy()
    model = edge_rnn.load_state_dict(net.state_dict(), cell="rnn_relu" if kind == "relu" else None)
    assert np.abs(Reference(model).run(x.numpy()) - expected).max() < 1e-6
