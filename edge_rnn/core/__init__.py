"""The model and its step: arrays in, arrays out; no clock, no socket, no file."""
