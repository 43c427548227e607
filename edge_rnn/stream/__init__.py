"""Readings in, verdicts out: topics, assembly of several channels into one vector, the table of streams."""
