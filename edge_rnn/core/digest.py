"""One digest per set of weights: which network this is, whatever its name or origin.

It is taken over the unpacked float32 tensors as PyTorch gave them, so the machine's vector width,
the packing and the provenance do not matter. A snapshot names it, to be refused by another network.
"""

from __future__ import annotations

import hashlib

from edge_rnn.core.model import Float32, Model


def weights_digest(model: Model) -> str:
    """Hex sha-256 over cells, activations, shapes and the little-endian bytes of all tensors."""
    digest = hashlib.sha256(b"weights-1\n")

    def tensor(name: str, value: Float32 | None) -> None:
        if value is None:
            digest.update(f"{name} none\n".encode())
        else:
            digest.update(f"{name} {'x'.join(map(str, value.shape))}\n".encode())
            digest.update(value.astype("<f4").tobytes())

    for layer in model.layers:
        digest.update(f"layer {layer.cell}\n".encode())
        tensor("w_ih", layer.w_ih)
        tensor("w_hh", layer.w_hh)
        tensor("b_ih", layer.b_ih)
        tensor("b_hh", layer.b_hh)
        tensor("w_hr", layer.w_hr)
    for linear in model.head:
        digest.update(f"linear {linear.activation}\n".encode())
        tensor("weight", linear.weight)
        tensor("bias", linear.bias)
    return digest.hexdigest()
