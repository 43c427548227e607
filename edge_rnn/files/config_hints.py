"""What is allowed in a configuration and seldom meant."""

from __future__ import annotations

from edge_rnn.files.config_types import Config
from edge_rnn.stream.topics import Template


def mixed_senders(config: Config) -> list[str]:
    """One line a stream whose topics match many senders and name none, so that all share one state."""
    lines = []
    for stream in config.streams:
        templates = [Template(topic) for topic in dict.fromkeys(c.topic for c in stream.channels)]
        wild = [t.text for t in templates if not t.fields and {"+", "#"} & set(t.text.split("/"))]
        if wild and not stream.key:
            more = f" and {len(wild) - 1} more topic(s)" if len(wild) > 1 else ""
            sign = "+" if "+" in wild[0].split("/") else "#"
            lines.append(
                f'stream "{stream.name}": all senders of {wild[0]!r}{more} are one stream; '
                f"a {{name}} in place of {sign} gives each its own"
            )
    return lines
