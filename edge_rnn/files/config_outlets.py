"""The tables of a configuration about what goes out beside scores: Home Assistant, commands, sinks, records.

Each table but `[reload]` turns its part on by being there. What can be checked without a network is checked
here: a webhook's URL, a command's program, the record's folder, topics that would meet others.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge_rnn.files.config_types import (
    EVENT_TYPES,
    RECORD_FORMATS,
    CommandsConfig,
    EventType,
    HomeAssistantConfig,
    RecordConfig,
    ReloadConfig,
    Secret,
    SinkConfig,
)
from edge_rnn.files.config_walk import UNITS_NS, Table, describe

_SECOND: Final = UNITS_NS["s"]
_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}"
_WILD: Final = re.compile(r"[+#{}]|^\$|^/|/$|//")
_MB: Final = 1 << 20

SecretFile = Callable[[Table, str], "Secret | None"]
"""Reads the secret in the file that a key of a table names; problems are noted."""


def topic(table: Table, key: str, default: str) -> str:
    """Topic levels without wildcards."""
    text = table.text(key, default, what="topic levels")
    if _WILD.search(text) or len(text) > 256:
        table.note(key, f"expected topic levels without wildcards or empty levels, got {describe(text)}")
        return default
    return text


def read_homeassistant(table: Table | None) -> HomeAssistantConfig | None:
    """`[homeassistant]`, or None where it is not there."""
    if table is None:
        return None
    config = HomeAssistantConfig(
        prefix=topic(table, "prefix", "homeassistant"),
        max_streams=table.integer("max_streams", 100, 1, 1000),
    )
    table.close()
    return config


def read_commands(table: Table | None, base: str) -> CommandsConfig | None:
    """`[commands]`, or None where it is not there; `base` is the daemon's first level."""
    if table is None:
        return None
    config = CommandsConfig(topic=topic(table, "topic", f"{base}/command"))
    table.close()
    return config


def read_sinks(root: Table, environ: Mapping[str, str], secret_file: SecretFile) -> tuple[SinkConfig, ...]:
    """All `[[sink]]`."""
    sinks = tuple(_sink(table, environ, secret_file) for table in root.tables("sink"))
    names = [sink.name for sink in sinks]
    for index, name in enumerate(names):
        if name and name in names[:index]:
            text = f'expected another name than that of an earlier sink, got "{name}"'
            root.problems.note(f"sink[{index}].name", text)
    return sinks


def _sink(table: Table, environ: Mapping[str, str], secret_file: SecretFile) -> SinkConfig:
    name = table.text("name", "", what='a name such as "pager" (letters, digits, _ - .)', pattern=_NAME)
    table.required("name", 'a name such as "pager"')
    web, run = table.has("webhook"), table.has("command")
    if web == run:
        table.note("webhook", f"expected either webhook or command, got {'both' if web else 'neither'}")
    url = table.text("webhook", None, what="a URL such as https://example.org/alarm")
    if url is not None:
        _check_url(table, url)
    argv = table.texts("command", (), what='texts, the program first, such as ["/usr/bin/logger"]')
    if argv and shutil.which(argv[0]) is None:
        table.note("command", f"expected a program that can be run, got {describe(argv[0])}")
    if run and not web:
        for key in ("secret_file", "secret_env"):
            table.forbid(key, "expected only with a webhook, whose bodies it signs")
    config = SinkConfig(
        name=name,
        webhook=url,
        command=argv,
        events=_events(table),
        streams=table.texts("streams", (), what='patterns of stream ids such as "pumps/*"'),
        secret=_secret(table, environ, secret_file),
        timeout_ns=table.duration("timeout", 10 * _SECOND, _SECOND // 10, UNITS_NS["h"]),
        retry_for_ns=table.duration("retry_for", 5 * UNITS_NS["m"] if web else 0, 0),
        queue=table.integer("queue", 100, 1, 100_000),
    )
    table.close()
    return config


def _check_url(table: Table, url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        account = parts.username is not None or parts.password is not None
    except ValueError:
        fits, account = False, False
    if account:
        # Such a text may carry a password, so it is not repeated.
        table.note("webhook", "expected a URL without an account, got one; sign with secret_file instead")
    elif not fits or not url.isascii() or " " in url:
        table.note("webhook", f"expected a URL such as https://example.org/alarm, got {describe(url)}")


def _events(table: Table) -> tuple[EventType, ...]:
    listed = ", ".join(f'"{word}"' for word in EVENT_TYPES)
    words = table.texts("events", ("open", "close"), what=f"{listed}", pattern="|".join(EVENT_TYPES))
    return tuple(known for known in EVENT_TYPES if known in words)


def _secret(table: Table, environ: Mapping[str, str], secret_file: SecretFile) -> Secret | None:
    remedy = 'name a file: secret_file = "webhook_secret"'
    table.forbid("secret", f"a secret does not belong into this file; {remedy}")
    if table.has("secret_file") and table.has("secret_env"):
        table.note("secret_env", "expected either secret_file or secret_env, got both")
        return None
    name = table.text("secret_env", None, what="the name of an environment variable")
    if name is not None:
        value = environ.get(name)
        if not value:
            table.note("secret_env", "expected a variable of the environment, got one that is not set")
            return None
        return Secret(value)
    return secret_file(table, "secret_file") if table.has("secret_file") else None


def read_record(table: Table | None, base: Path, store: Path) -> RecordConfig | None:
    """`[record]`, or None; `store` is the database, `base` where relative paths start."""
    if table is None:
        return None
    text = table.text("path", None, what="the path of a folder")
    folder = store.parent / "record" if text is None else base / text
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        table.note("path", f"expected a folder that can be written to, got {describe(str(folder))}")
    most, total = table.integer("max_file_mb", 16, 1, 4096), table.integer("max_total_mb", 1024, 1, 1 << 24)
    if total < most:
        table.note("max_total_mb", f"expected at least max_file_mb = {most}, got {total}")
    config = RecordConfig(
        path=folder,
        format=table.choice("format", "ndjson", RECORD_FORMATS),
        gzip=table.boolean("gzip", default=True),
        max_file_bytes=most * _MB,
        max_total_bytes=total * _MB,
    )
    table.close()
    return config


def read_reload(table: Table | None) -> ReloadConfig:
    """`[reload]`."""
    if table is None:
        return ReloadConfig()
    config = ReloadConfig(watch_ns=table.duration("watch", 0, 0))
    if 0 < config.watch_ns < _SECOND:
        table.note("watch", 'expected "0s" for never, or at least "1s"')
    table.close()
    return config
