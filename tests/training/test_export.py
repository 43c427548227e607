"""Export: what a module computes is what the file computes, or nothing is written."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import edge_rnn
from edge_rnn.core.model import Input, Scaler
from edge_rnn.errors import ExportError, ModelFileError
from tests.support import need


@pytest.fixture
def torch():
    return need.torch()


@pytest.fixture
def nets(torch):
    torch.manual_seed(7)
    from tests.training import nets

    return nets


@pytest.fixture
def export(torch, tmp_path):
    """Export to a file, load it, and give the model: the load replays the recorded outputs."""
    from edge_rnn.training.export import export_model

    def run(module, *args, **options):
        path = tmp_path / "net.safetensors"
        written = export_model(module, path, *args, **options)
        model = edge_rnn.load(path)
        assert model.parameters == written.parameters
        return model

    return run


def stepped(model, x):
    from edge_rnn.core.reference import Reference

    return Reference(model).run(x)


def random(steps, size, seed=3):
    return np.random.default_rng(seed).standard_normal((steps, size)).astype(np.float32)


def agrees(model, x, y):
    y = y.detach().numpy()
    np.testing.assert_allclose(stepped(model, x), y.reshape(len(x), -1), atol=2e-6)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_every_cell_with_and_without_biases(torch, nets, export, kind, layers, bias, batch_first):
    body = getattr(torch.nn, kind)(3, 7, num_layers=layers, bias=bias, batch_first=batch_first)
    net = nets.Chain(body, torch.nn.Linear(7, 2, bias=bias))
    model = export(net, ["a", "b", "c"])
    assert len(model.layers) == layers
    assert [i.name for i in model.inputs] == ["a", "b", "c"]
    x = random(100, 3)
    tensor = torch.from_numpy(x)
    agrees(model, x, net(tensor[None] if batch_first else tensor[:, None])[0])


def test_relu_cells_and_projections(torch, nets, export):
    x = random(60, 3)
    relu = torch.nn.RNN(3, 6, nonlinearity="relu", batch_first=True)
    model = export(relu, ["a", "b", "c"])
    assert model.layers[0].cell == "rnn_relu"
    assert not model.head
    agrees(model, x, relu(torch.from_numpy(x)[None])[0])
    projected = torch.nn.LSTM(3, 9, num_layers=2, proj_size=4)
    model = export(projected)
    assert [layer.output_size for layer in model.layers] == [4, 4]
    agrees(model, x, projected(torch.from_numpy(x))[0])


@pytest.mark.parametrize(
    "label", ["ReLU", "Tanh", "Sigmoid", "Softmax"],
)  # fmt: skip
def test_activation_modules_are_seen(torch, nets, export, label):
    options = {"dim": -1} if label == "Softmax" else {}
    net = nets.Chain(
        torch.nn.GRU(3, 6, batch_first=True), torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Dropout(0.5),
        torch.nn.Linear(5, 4), getattr(torch.nn, label)(**options),
    )  # fmt: skip
    with pytest.warns(UserWarning, match=r"head\.2 \(Dropout\) does nothing after training"):
        model = export(net)
    assert [layer.activation for layer in model.head] == ["relu", label.lower()]


@pytest.mark.parametrize("last", ["none", "tanh", "sigmoid", "softmax"])
def test_functional_activations_are_found_from_the_outputs(torch, nets, export, last):
    functions = {
        "none": lambda x: x, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
        "softmax": lambda x: torch.softmax(x, -1),
    }  # fmt: skip
    net = nets.FunctionalHead(last=functions[last])
    model = export(net)
    assert [layer.activation for layer in model.head] == ["relu", last]
    x = random(50, 3)
    agrees(model, x, net(torch.from_numpy(x)[None]))


def test_an_activation_the_samples_cannot_tell_is_named(torch, nets, export):
    net = nets.FunctionalHead(first=torch.relu)
    with torch.no_grad():
        net.fc1.bias.fill_(50.0)
    taken = "fc1: the samples cannot tell none from relu, taken as none"
    with pytest.warns(UserWarning, match=taken) as told:
        model = export(net)
    assert [layer.activation for layer in model.head] == ["none", "none"]
    assert "head=[('fc1', 'relu'), ('fc2', 'none')]" in str(told[0].message)
    assert any("fc1" in notice for notice in model.provenance["notices"])
    model = export(net, head=[("fc1", "relu"), "fc2"])
    assert [layer.activation for layer in model.head] == ["relu", "none"]


def test_different_sizes_in_execution_order(torch, nets, export):
    net = nets.TwoSizes().eval()
    with pytest.warns(UserWarning, match="drop"):
        model = export(net)
    assert [layer.hidden_size for layer in model.layers] == [12, 5]
    x = random(40, 3)
    agrees(model, x, net(torch.from_numpy(x)[None]))


def test_dropout_inside_a_recurrent_module_is_a_notice(torch, nets, export):
    net = torch.nn.LSTM(3, 4, num_layers=2, dropout=0.3)
    with pytest.warns(UserWarning, match=r"dropout 0\.3 does nothing after training"):
        export(net)


@pytest.mark.filterwarnings("ignore:fc. the samples cannot tell")
@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_cells_in_a_loop_of_ones_own(torch, nets, export, kind):
    net = nets.CellLoop(kind)
    model = export(net)
    x = random(40, 3)
    agrees(model, x, net(torch.from_numpy(x)[None]))


def test_a_module_that_does_one_step_a_call(torch, nets, export):
    net = nets.CellStep()
    model = export(net)
    assert model.head[0].activation == "sigmoid"
    x = random(30, 3)
    h = c = torch.zeros(1, 6)
    rows = []
    for row in torch.from_numpy(x):
        y, h, c = net(row[None], h, c)
        rows.append(y[0])
    agrees(model, x, torch.stack(rows))


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_a_bare_cell(torch, nets, export, kind):
    model = export(getattr(torch.nn, kind)(3, 5))
    assert model.output_size == 5


def test_double_precision_and_the_last_step_squeezed(torch, nets, export):
    class Squeezed(nets.PriceNet):
        def forward(self, x):
            return super().forward(x).squeeze()

    net = Squeezed(3, 8).double()
    model = export(net)
    x = random(20, 3)
    y = torch.stack([net(torch.from_numpy(x[: t + 1]).double()[None]) for t in range(20)])
    agrees(model, x, y)


def test_the_file_carries_its_proof_and_no_private_facts(torch, nets, export, tmp_path):
    scaler = Scaler(np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.5, 4.0]))
    inputs = [Input("t", "degC"), "p", "v"]
    model = export(nets.Chain(torch.nn.GRU(3, 6), torch.nn.Linear(6, 3)), inputs, scaler=scaler, name="pump")
    assert model.name == "pump"
    assert model.inputs[0] == Input("t", "degC")
    np.testing.assert_array_equal(model.scaler.mean, scaler.mean)
    assert model.self_test is not None
    assert len(model.self_test.x) >= 16
    assert model.self_test.tolerance < 1e-4
    assert model.provenance["torch"] == torch.__version__
    assert model.provenance["module"] == "Chain"
    raw = (tmp_path / "net.safetensors").read_bytes()
    assert str(tmp_path).encode() not in raw


def test_training_mode_and_random_state_are_as_before(torch, nets, export):
    net = nets.Noisy(5, 4)
    net.fc.eval()
    before = torch.random.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    export(net, samples=random(20, 5))
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
    assert net.training
    assert net.lstm.training
    assert not net.fc.training


def test_own_samples_are_the_self_test(torch, nets, export):
    x = random(20, 3)
    model = export(torch.nn.GRU(3, 4), samples=torch.from_numpy(x))
    np.testing.assert_array_equal(model.self_test.x, x)


def test_an_unusual_forward_with_call(torch, nets, export):
    net = nets.Raising()
    with pytest.raises(ExportError, match=r"Raising could not be run .*call=lambda"):
        export(net)
    model = export(net, call=lambda x: net({"x": x}))
    assert model.layers[0].cell == "gru"
    with pytest.raises(ExportError, match="could not be run"):
        export(net, call=lambda x: net({"x": x[:3]}))


def refused(export, tmp_path, net, match, **options):
    with pytest.raises((ExportError, ModelFileError), match=match) as caught:
        export(net, **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "nothing may be written"


def test_refusals(torch, nets, export, tmp_path):
    nn = torch.nn
    refused(
        export, tmp_path, nn.LSTM(3, 4, bidirectional=True), r"bidirectional.*the future.*bidirectional=False"
    )
    refused(export, tmp_path, nn.Linear(3, 3), "no nn.RNN, nn.LSTM or nn.GRU")
    refused(export, tmp_path, nets.Residual(), r"outputs are not reproduced.*tolerance.*head=\[")
    refused(export, tmp_path, nets.LearnedStart(), "start of the module itself cannot be part of a model")
    refused(export, tmp_path, nets.Concatenated(), "do not form one chain")
    refused(export, tmp_path, nn.GRU(3, 4).half(), r"float16.*module\.float\(\)")
    refused(export, tmp_path, nets.Chain(nn.GRU(3, 4), nn.LayerNorm(4)), r"head\.0 \(LayerNorm\)")
    refused(export, tmp_path, nets.Chain(nn.GRU(3, 4), nn.ReLU()), "follows a recurrent layer")
    twice = nets.Chain(nn.GRU(3, 4), nn.Linear(4, 2), nn.ReLU(), nn.Tanh())
    refused(export, tmp_path, twice, "follows another activation")
    log = nets.Chain(nn.GRU(3, 4), nn.Linear(4, 2), nn.LogSoftmax(-1))
    refused(export, tmp_path, log, "LogSoftmax; export the module without it")
    refused(export, tmp_path, nn.GRU(3, 4), "expected 3 names", inputs=["a"])
    refused(export, tmp_path, nn.GRU(3, 4), r"a list of names, got the text 'abc'", inputs="abc")
    refused(export, tmp_path, nn.GRU(3, 4).state_dict(), "expected an nn.Module, got OrderedDict")
    refused(export, tmp_path, nn.GRU(3, 4), r"shape \(T, 3\) with T >= 16", samples=random(5, 3))
    refused(export, tmp_path, nn.GRU(3, 4), "NaN", samples=np.full((20, 3), np.nan))


def test_a_wrong_head_is_refused(torch, nets, export, tmp_path):
    net = nets.FunctionalHead()
    refused(export, tmp_path, net, "head= does not say what forward does", head=["fc1", "fc2"])
    refused(export, tmp_path, net, r"expected the name of a Linear \(fc1, fc2\), got 'fc3'", head=["fc3"])
    refused(export, tmp_path, net, "expected one of none, relu", head=[("fc1", "gelu"), "fc2"])


def test_a_linear_below_a_recurrent_layer_is_refused(torch, nets, export, tmp_path):
    class Below(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = torch.nn.GRU(3, 4, batch_first=True)
            self.fc = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.gru(self.fc(x))[0]

    refused(export, tmp_path, Below(), "recurrent layers first, then linear ones")


def test_diverged_weights_are_refused(torch, nets, export, tmp_path):
    net = torch.nn.GRU(3, 4)
    with torch.no_grad():
        net.weight_ih_l0[0, 0] = float("nan")
    refused(export, tmp_path, net, "not finite|finite numbers")


@pytest.mark.parametrize("name", ["weight_hh_l0", "bias_ih_l0", "weight_ih_l0"])
def test_any_tampered_tensor_is_noticed_at_load(torch, nets, tmp_path, name):
    """The comparison sees every tensor: with one number of one tensor changed, the outputs differ."""
    from dataclasses import replace

    from edge_rnn.files.model_file import save
    from edge_rnn.training.export import export_model
    from edge_rnn.training.parts import array

    net = torch.nn.GRU(3, 6)
    model = export_model(net, tmp_path / "a.safetensors")
    with torch.no_grad():
        getattr(net, name).view(-1)[0] += 0.05
    field = {"weight_hh_l0": "w_hh", "bias_ih_l0": "b_ih", "weight_ih_l0": "w_ih"}[name]
    layer = replace(model.layers[0], **{field: array(getattr(net, name))})
    save(replace(model, layers=(layer,)), tmp_path / "b.safetensors")
    with pytest.raises(ModelFileError, match="self-test"):
        edge_rnn.load(tmp_path / "b.safetensors")


def test_a_plain_module_gives_no_warning(torch, nets, export):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export(nets.PriceNet())
