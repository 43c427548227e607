"""PyTorch files: what torch writes is read exactly, what it does not write is refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest

from edge_rnn.errors import ModelFileError
from edge_rnn.files.torch_file import LegacyFormatWarning, read_torch
from tests.support import need
from tests.support import torch_files as tf

# --- files that torch wrote ---


def net(torch):
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 16, 2, batch_first=True)
            self.head = torch.nn.Linear(16, 4)

    torch.manual_seed(0)
    return Net()


def saved(torch, value, **options) -> bytes:
    stream = BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def check_against(tensors, expected) -> None:
    """Every tensor equal to torch's, bit for bit (bfloat16 widened)."""
    assert list(tensors) == list(expected)
    for name, tensor in expected.items():
        value = tensor.detach()
        wide = value.float() if value.dtype.itemsize == 2 and "bfloat16" in str(value.dtype) else value
        assert tensors[name].dtype == wide.numpy().dtype
        assert tensors[name].shape == tuple(value.shape)
        assert tensors[name].tobytes() == wide.contiguous().numpy().tobytes()


KINDS: dict[str, Callable] = {
    "state dict": lambda t, m: (m.state_dict(), m.state_dict(), {}),
    "protocol 4": lambda t, m: (m.state_dict(), m.state_dict(), {"pickle_protocol": 4}),
    "checkpoint": lambda t, m: (
        {
            "epoch": 3, "model": m.state_dict(), "opt": stepped(t, m).state_dict(), "loss": 0.1,
            "best": t.tensor(0.5), "rng": t.get_rng_state(), "args": {"lr": 1e-3, "size": t.Size([2, 3])},
        },
        m.state_dict(), {},
    ),
    "lightning": lambda t, m: (
        {
            "state_dict": {f"model.{k}": v for k, v in m.state_dict().items()},
            "optimizer_states": [stepped(t, m).state_dict()], "lr_schedulers": [],
        },
        {f"model.{k}": v for k, v in m.state_dict().items()}, {},
    ),
    "parameters": lambda t, m: (dict(m.named_parameters()), dict(m.named_parameters()), {}),
    "half": lambda t, m: (d := {k: v.half() for k, v in m.state_dict().items()}, d, {}),
    "bfloat16": lambda t, m: (d := {k: v.bfloat16() for k, v in m.state_dict().items()}, d, {}),
    "double": lambda t, m: (d := {k: v.double() for k, v in m.state_dict().items()}, d, {}),
    "views": lambda t, m: (
        d := {
            "rnn.weight_ih_l0": t.arange(24.0).reshape(4, 6).t(), "b": t.arange(24.0)[5:9],
            "c": t.arange(24.0).reshape(4, 6)[1:3, ::2], "e": t.empty(0, 3), "f": t.arange(6.0)[2],
            "n": t.tensor(7), "o": t.ones(3, dtype=t.bool), "s": t.arange(4, dtype=t.int16),
        },
        d, {},
    ),
    "gru": lambda t, m: (d := t.nn.GRU(3, 8).state_dict(), d, {}),
    "rnn": lambda t, m: (d := t.nn.RNN(3, 8).state_dict(), d, {}),
    "cell": lambda t, m: (d := t.nn.LSTMCell(3, 8).state_dict(), d, {}),
    "projected": lambda t, m: (d := t.nn.LSTM(3, 8, proj_size=4).state_dict(), d, {}),
    "many tensors": lambda t, m: (d := t.nn.LSTM(1, 2, num_layers=70).state_dict(), d, {}),
    "wide": lambda t, m: (d := t.nn.RNN(300, 300).state_dict(), d, {}),
    "legacy": lambda t, m: (m.state_dict(), m.state_dict(), {"_use_new_zipfile_serialization": False}),
    "legacy views": lambda t, m: (
        d := {"a": t.arange(24.0).reshape(4, 6).t(), "b": t.arange(9.0)[3:5], "h": t.ones(3).half()},
        d, {"_use_new_zipfile_serialization": False},
    ),
}  # fmt: skip


def stepped(torch, module):
    """An optimiser whose state holds tensors."""
    optimiser = torch.optim.Adam(module.parameters())
    sum(p.sum() for p in module.parameters()).backward()
    optimiser.step()
    return optimiser


@pytest.mark.parametrize("kind", KINDS)
def test_what_torch_saved_is_read_exactly(kind: str) -> None:
    torch = need.torch()
    value, expected, options = KINDS[kind](torch, net(torch))
    data = saved(torch, value, **options)
    if "legacy" in kind:
        with pytest.warns(LegacyFormatWarning, match="damage in it cannot be noticed"):
            tensors = read_torch(data, "press.pt", allow_legacy=True)
    else:
        tensors = read_torch(data, "press.pt")
    check_against(tensors, expected)


def whole(torch):
    return saved(torch, torch.nn.Sequential(torch.nn.LSTM(2, 3)))


def script(torch):
    stream = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that TorchScript is old: that is why it is tested
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), stream)
    return stream.getvalue()


def exported(torch):
    stream = BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(2, 3), (torch.zeros(1, 2),)), stream)
    return stream.getvalue()


def quantised(torch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(net(torch), {torch.nn.LSTM, torch.nn.Linear})
        return saved(torch, model.state_dict())


REFUSED: dict[str, tuple[Callable, str]] = {
    "whole module": (
        whole,
        r"Sequential' \(a whole model was pickled\)\. Save the weights only: torch\.save\(",
    ),
    "whole module, old": (
        lambda t: saved(t, t.nn.Linear(2, 3), _use_new_zipfile_serialization=False),
        "whole model",
    ),
    "TorchScript": (
        script,
        r"TorchScript archive\. In Python: torch\.save\(torch\.jit\.load\(\"press\.pt\"\)",
    ),
    "export": (exported, r"torch\.export archive \(\.pt2\)"),
    "quantised": (quantised, "quantised"),
    "one tensor": (lambda t: saved(t, t.ones(3)), "single tensor"),
    "list": (lambda t: saved(t, [t.ones(3)]), "expected a dict of tensors, got a list"),
    "complex": (lambda t: saved(t, {"a": t.ones(2, dtype=t.complex64)}), "ComplexFloatStorage"),
    "float8": (lambda t: saved(t, {"a": t.ones(2).to(t.float8_e5m2)}), "torch"),
    "sparse": (lambda t: saved(t, {"a": t.ones(2, 2).to_sparse()}), "beside plain tensors"),
    "negated view": (lambda t: saved(t, {"a": t._neg_view(t.tensor([2.0, -4.0]))}), "flags"),
    "nan": (lambda t: saved(t, {"a": t.tensor([[0.0, float("nan")]])}), r"'a' holds nan at index \(0, 1\)"),
    "numpy scalar": (lambda t: saved(t, {"m": {"a": t.ones(1)}, "x": np.float64(1)}), "numpy"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_dict_of_tensors_is_refused_by_name(kind: str) -> None:
    torch = need.torch()
    make, expected = REFUSED[kind]
    with pytest.raises(ModelFileError, match=expected) as caught:
        read_torch(make(torch), "press.pt", allow_legacy=True)
    assert str(caught.value).startswith("press.pt: ")
    assert "\n" not in str(caught.value)


def test_the_hand_made_files_are_what_torch_reads() -> None:
    torch = need.torch()
    arrays = tf.small_arrays()
    with pytest.warns(LegacyFormatWarning):
        old = read_torch(tf.legacy_arrays(arrays), "m", allow_legacy=True)
    for data, ours in (
        (tf.torch_file(arrays), read_torch(tf.torch_file(arrays), "m")),
        (tf.legacy_arrays(arrays), old),
    ):
        theirs = torch.load(BytesIO(data), weights_only=True)
        for name, array in arrays.items():
            assert ours[name].tobytes() == array.tobytes() == theirs[name].numpy().tobytes()


# --- which dict ---


def checkpoint(items: dict[str, bytes]) -> bytes:
    return tf.archive(tf.PROTOCOL + tf.dictionary(items) + tf.STOP, {"0": bytes(64)})


RNN = tf.dictionary(
    {"weight_ih": tf.tensor("0", (2, 2), (2, 1)), "weight_hh": tf.tensor("0", (2, 2), (2, 1))}
)
FC = tf.dictionary({"weight": tf.tensor("0", (1, 2), (2, 1))})


def test_a_checkpoint_with_one_model_needs_no_key() -> None:
    assert list(read_torch(checkpoint({"epoch": tf.number(3), "net": RNN}), "m")) == [
        "weight_ih",
        "weight_hh",
    ]


def test_a_layer_of_single_numbers_is_found() -> None:
    single = {name: tf.tensor("0", (1, 1), (1, 1)) for name in ("weight_ih_l0", "weight_hh_l0")}
    assert list(read_torch(checkpoint(single), "m")) == list(single)


def test_two_models_in_one_file_need_a_key_and_dots_reach_into_dicts() -> None:
    data = checkpoint({"a": RNN, "b": tf.dictionary({"ema": RNN})})
    with pytest.raises(
        ModelFileError, match=r"several dicts hold a recurrent layer \('a', 'b\.ema'\).*--key"
    ):
        read_torch(data, "m")
    assert list(read_torch(data, "m", key="b.ema")) == ["weight_ih", "weight_hh"]
    with pytest.raises(ModelFileError, match=r"no dict called 'b\.x'"):
        read_torch(data, "m", key="b.x")


def test_no_tensor_is_dropped_silently() -> None:
    with pytest.raises(
        ModelFileError, match=r"'rnn' holds the recurrent layer, but 'fc\.weight' holds tensors too"
    ):
        read_torch(checkpoint({"rnn": RNN, "fc": FC}), "m")
    assert len(read_torch(checkpoint({"rnn": RNN, "fc": FC}), "m", key="rnn")) == 2
    listed = b"](" + tf.tensor("0", (2,), (1,)) + b"e"
    for hidden in (listed, tf.dictionary({"deep": listed}), b"(" + tf.tensor("0", (2,), (1,)) + b"t"):
        with pytest.raises(ModelFileError, match="with tensors inside, beside plain tensors"):
            read_torch(checkpoint({"b": tf.tensor("0", (2,), (1,)), "layers": hidden}), "m")


def test_numbers_and_texts_beside_the_tensors_are_left_out() -> None:
    data = checkpoint(
        {"b": tf.tensor("0", (2,), (1,)), "epoch": tf.number(3), "note": tf.text("x"), "c": b"}"}
    )
    assert list(read_torch(data, "m")) == ["b"]


def test_damage_is_noticed_by_checksum_in_a_zip_and_not_in_the_old_format() -> None:
    arrays = tf.small_arrays()
    data = bytearray(tf.torch_file(arrays))
    at = data.find(arrays["gru.weight_ih_l0"].tobytes())
    assert at > 0
    data[at] ^= 1
    with pytest.raises(ModelFileError, match="CRC"):
        read_torch(bytes(data), "m")
    old = bytearray(tf.legacy_arrays(arrays))
    old[old.find(arrays["gru.weight_ih_l0"].tobytes())] ^= 1
    with pytest.raises(ModelFileError, match=r"without a checksum.*--allow-legacy"):
        read_torch(bytes(old), "m")
    with pytest.warns(LegacyFormatWarning):
        assert read_torch(bytes(old), "m", allow_legacy=True)
