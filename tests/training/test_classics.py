"""Two classic models, trained and written the way tutorials do it: they load, step and agree."""

from __future__ import annotations

import numpy as np
import pytest

import edge_rnn
from tests.support import need

LETTERS = "helo"


@pytest.fixture(scope="module")
def torch():
    return need.torch()


@pytest.fixture(scope="module")
def character(torch):
    """nn.RNN(4, 8) + Linear(8, 4), trained until 'hell' gives 'ello'."""
    from tests.training.nets import CharacterNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = CharacterNet()
    eye = torch.eye(4)
    x = torch.stack([eye[LETTERS.index(c)] for c in "hell"])[:, None]
    y = torch.tensor([LETTERS.index(c) for c in "ello"])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(400):
        logits, _ = net(x, torch.zeros(1, 1, 8))
        loss = torch.nn.functional.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if (logits.argmax(-1) == y).all() and loss < 0.05:
            break
    assert (logits.argmax(-1) == y).all()
    return net.eval()


@pytest.fixture(scope="module")
def price(torch):
    """nn.LSTM(5, 64, num_layers=2, batch_first=True) + Linear(64, 1) on the last step, briefly trained."""
    from tests.training.nets import PriceNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = PriceNet()
        walk = torch.randn(200, 5).cumsum(0)
    walk = (walk - walk.mean(0)) / walk.std(0)
    windows = walk.unfold(0, 20, 1).transpose(1, 2)[:-1]
    targets = walk[20:, 3:4]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(15):
        loss = (net(windows) - targets).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval(), walk.numpy().astype(np.float32)


def from_export(net, path, inputs):
    from edge_rnn.training.export import export_model

    export_model(net, path.with_suffix(".safetensors"), inputs)
    return edge_rnn.load(path.with_suffix(".safetensors"))


def from_state_dict(torch, net, path):
    torch.save(net.state_dict(), path.with_suffix(".pt"))
    return edge_rnn.load(path.with_suffix(".pt"))


def either(request, torch, net, path, inputs):
    """The model out of the file that `request` asks for."""
    if request == "export":
        return from_export(net, path, inputs)
    return from_state_dict(torch, net, path)


ROUTES = pytest.mark.parametrize("route", ["export", "state_dict"])


@ROUTES
def test_stepped_in_our_runtime_hell_gives_ello(torch, character, tmp_path, route):
    model = either(route, torch, character, tmp_path / "char", list(LETTERS))
    assert (model.layers[0].cell, model.input_size, model.output_size) == ("rnn_tanh", 4, 4)
    stepper = edge_rnn.Stepper(model)
    eye = np.eye(4, dtype=np.float32)
    said = "".join(LETTERS[int(stepper.step(eye[LETTERS.index(c)]).argmax())] for c in "hell")
    assert said == "ello"


@ROUTES
def test_each_character_step_is_pytorchs(torch, character, tmp_path, route):
    model = either(route, torch, character, tmp_path / "char", list(LETTERS))
    stepper = edge_rnn.Stepper(model)
    hidden = torch.zeros(1, 1, 8)
    rng = np.random.default_rng(5)
    for _ in range(200):
        x = np.eye(4, dtype=np.float32)[rng.integers(4)]
        with torch.no_grad():
            y, hidden = character(torch.from_numpy(x)[None, None], hidden)
        np.testing.assert_allclose(stepper.step(x), y[0].numpy(), atol=5e-6)
        np.testing.assert_allclose(stepper.hidden(0), hidden[0, 0].numpy(), atol=5e-6)


@ROUTES
def test_price_model_stepped_over_a_sequence(torch, price, tmp_path, route):
    """After T steps the output is what PyTorch gives for a window of these T readings."""
    net, walk = price
    model = either(route, torch, net, tmp_path / "price", ["open", "high", "low", "close", "volume"])
    assert [(layer.cell, layer.hidden_size) for layer in model.layers] == [("lstm", 64), ("lstm", 64)]
    stepper = edge_rnn.Stepper(model)
    for t, x in enumerate(walk[:60], 1):
        with torch.no_grad():
            expected = net(torch.from_numpy(walk[None, :t]))[0].numpy()
        np.testing.assert_allclose(stepper.step(x), expected, atol=5e-6)


@ROUTES
def test_price_model_on_sliding_windows(torch, price, tmp_path, route):
    """Trained on windows of 20 that start from zeros: the window stepper gives exactly these."""
    net, walk = price
    model = either(route, torch, net, tmp_path / "price", ["open", "high", "low", "close", "volume"])
    windows = edge_rnn.WindowStepper(model, 20)
    plain = edge_rnn.Stepper(model)
    apart = 0.0
    for t, x in enumerate(walk[:80], 1):
        y = windows.step(x)
        carried = plain.step(x)
        if t >= 20:
            with torch.no_grad():
                expected = net(torch.from_numpy(walk[None, t - 20 : t]))[0].numpy()
            np.testing.assert_allclose(y, expected, atol=5e-6)
            apart = max(apart, float(np.abs(carried - expected).max()))
    assert apart > 1e-4, "a carried state must differ from a window here, or this test shows nothing"
