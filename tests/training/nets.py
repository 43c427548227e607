"""Networks as people write them; torch is needed to import this."""

from __future__ import annotations

import torch
from torch import nn


class CharacterNet(nn.Module):
    """All steps out, hidden state in and out: the character model of every tutorial."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(4, 8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x, hidden):
        out, hidden = self.rnn(x, hidden)
        return self.fc(out.reshape(-1, 8)), hidden


class PriceNet(nn.Module):
    """The last step of a batch-first window out."""

    def __init__(self, inputs=5, hidden=64):
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, num_layers=2, batch_first=True)
        self.fc = nn.Linear(hidden, 1)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.fc(out[:, -1])


class Chain(nn.Module):
    """Any recurrent module and a head made of modules, all steps."""

    def __init__(self, body, *head):
        super().__init__()
        self.body = body
        self.head = nn.Sequential(*head)

    def forward(self, x):
        out, state = self.body(x)
        return self.head(out), state


class FunctionalHead(nn.Module):
    """Activations that no module shows."""

    def __init__(self, first=torch.relu, last=lambda x: x):
        super().__init__()
        self.gru = nn.GRU(3, 9, batch_first=True)
        self.fc1 = nn.Linear(9, 7)
        self.fc2 = nn.Linear(7, 4)
        self.first, self.last = first, last

    def forward(self, x):
        out, _ = self.gru(x)
        return self.last(self.fc2(self.first(self.fc1(out))))


class TwoSizes(nn.Module):
    """Different sizes per layer: several modules in sequence, dropout between, registered out of order."""

    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(3, 12, batch_first=True)
        self.out = nn.Linear(5, 2)
        self.drop = nn.Dropout(0.4)
        self.second = nn.LSTM(12, 5, batch_first=True)

    def forward(self, x):
        x, _ = self.first(x)
        x, _ = self.second(self.drop(x))
        return self.out(x)


class CellLoop(nn.Module):
    """Cells and the loop over time written out."""

    def __init__(self, kind="lstm", inputs=3):
        super().__init__()
        cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}[kind]
        self.low, self.high = cell(inputs, 6), cell(6, 5)
        self.fc = nn.Linear(5, 2, bias=False)

    def forward(self, x):
        low = high = None
        rows = []
        for t in range(x.shape[1]):
            low = self.low(x[:, t], low)
            high = self.high(low[0] if isinstance(low, tuple) else low, high)
            rows.append(self.fc(high[0] if isinstance(high, tuple) else high))
        return torch.stack(rows, 1)


class CellStep(nn.Module):
    """One step a call: the caller carries h and c."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(3, 6)
        self.fc = nn.Linear(6, 2)

    def forward(self, x, h, c):
        h, c = self.cell(x, (h, c))
        return torch.sigmoid(self.fc(h)), h, c


class LearnedStart(nn.Module):
    """An initial state that is a parameter: no model can hold that."""

    def __init__(self):
        super().__init__()
        self.start = nn.Parameter(torch.full((1, 1, 6), 0.7))
        self.gru = nn.GRU(3, 6, batch_first=True)

    def forward(self, x):
        return self.gru(x, self.start.expand(1, x.shape[0], 6).contiguous())[0]


class Residual(nn.Module):
    """Adds its input to its output: not a chain."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 6, batch_first=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return x + self.fc(self.gru(x)[0])


class Concatenated(nn.Module):
    """Two recurrent parts side by side."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.GRU(3, 4, batch_first=True), nn.GRU(3, 4, batch_first=True)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(torch.cat([self.a(x)[0], self.b(x)[0]], -1))


class Noisy(PriceNet):
    """Draws random numbers in forward and minds its training mode."""

    def forward(self, x):
        torch.randn(7)
        assert not self.training
        return super().forward(x)


class Raising(nn.Module):
    """Cannot be called in any way that could be guessed."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 6)

    def forward(self, batch):
        return self.gru(batch["x"])[0]
