"""The one place that imports torch, so that its absence is one clear message.

The rest of this package writes `from edge_rnn.training.extra import nn, torch`.
"""

from edge_rnn.errors import MissingExtraError

try:
    import torch
    from torch import nn
except ImportError as error:
    raise MissingExtraError(
        "training and export need PyTorch, which is not installed here; "
        "pip install 'edge-rnn[train]' (loading and running a model never needs it)"
    ) from error

__all__ = ["nn", "torch"]
