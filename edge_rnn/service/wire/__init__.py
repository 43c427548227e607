"""The quick way of usual messages: compiled loops over buffers, see `scan.py` and `scores.py`.

Everything here has a way in plain Python that gives the same: what is not usual goes that way, and so does
everything where nothing is compiled (a model from a library, without Numba).
"""
