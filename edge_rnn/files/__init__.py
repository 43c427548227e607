"""Bytes to values and back: every function returns a value or raises one typed error."""
