"""Building ahead of time: the compiled functions as a shared library for this or another processor."""
