"""The trained model as self-contained C99 for microcontrollers.

`runtime/` holds the hand-written C: the cells and the head of the numeric contract, tested bit for bit
against the Numba kernels in both numeric classes. It reads weights as `edge_rnn.core.pack` packs them
for one lane.
"""
