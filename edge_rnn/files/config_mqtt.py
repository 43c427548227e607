"""The table `[mqtt]`: where the broker is, how it is spoken to, and what is promised about each reading."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from edge_rnn.files.config_secrets import existing_file, password
from edge_rnn.files.config_types import (
    DELIVERIES,
    PROTOCOLS,
    READERS,
    Delivery,
    MqttConfig,
    Protocol,
    TlsConfig,
)
from edge_rnn.files.config_walk import UNITS_NS, Table, describe, duration_text

__all__ = ["default_client_id", "read_mqtt"]

_MACHINE_IDS: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_SECOND: Final = UNITS_NS["s"]


def read_mqtt(table: Table, base: Path, environ: Mapping[str, str], store: Path) -> MqttConfig:
    """The table; `store`: where the database is, which is a part of the default client id."""
    inner = table.table("tls")
    tls = None if inner is None else _tls(inner, base)
    host = _host(table)
    protocol = table.choice("protocol", "5", PROTOCOLS)
    username = table.text("username", None, what="an account name")
    secret = password(table, base, environ, username)
    plaintext = table.boolean("allow_plaintext_password", default=False)
    if table.problems.clean(table.at("host"), table.at("tls")) and secret is not None:
        if tls is None and not plaintext and not _is_local(host):
            table.note(
                "tls",
                f"missing; the password would go to {describe(host)} unencrypted; add [mqtt.tls], "
                "or allow_plaintext_password = true if the network is trusted",
            )
        if username is None and protocol == "3.1.1":
            table.note("username", "missing; MQTT 3.1.1 has no password without an account name")
    low = table.duration("reconnect_min", _SECOND, UNITS_NS["ms"] * 100)
    high = table.duration("reconnect_max", max(30 * _SECOND, low), UNITS_NS["ms"] * 100)
    if low > high and table.problems.clean(table.at("reconnect_min"), table.at("reconnect_max")):
        table.note(
            "reconnect_max",
            f'expected at least reconnect_min = "{duration_text(low)}", got "{duration_text(high)}"',
        )
    keepalive = table.duration("keepalive", 20 * _SECOND, _SECOND, 65535 * _SECOND)
    if keepalive % _SECOND:
        table.note("keepalive", f'expected whole seconds, got "{duration_text(keepalive)}"')
    qos = table.integer("qos", 1, 0, 1)
    expiry = table.duration("session_expiry", 24 * UNITS_NS["h"], 0)
    delivery = _delivery(table, protocol, qos, expiry)
    config = MqttConfig(
        host=host,
        port=table.integer("port", 1883 if tls is None else 8883, 1, 65535),
        protocol=protocol,
        client_id=table.text("client_id", None, what="a client id") or default_client_id(store),
        keepalive_s=keepalive // _SECOND,
        username=username,
        password=secret,
        qos=0 if delivery == "realtime" else qos,
        tls=tls,
        reconnect_min_ns=low,
        reconnect_max_ns=high,
        session_expiry_ns=expiry,
        receive_maximum=table.integer("receive_maximum", 1000, 1, 65535),
        delivery=delivery,
        reader=table.choice("reader", "auto", READERS),
        max_payload=table.integer("max_payload", 65536, 16, 1 << 24),
    )
    table.close()
    return config


def _delivery(table: Table, protocol: Protocol, qos: int, expiry_ns: int) -> Delivery:
    """`delivery`, and whether protocol and qos can keep what it promises."""
    most: Delivery = "realtime" if qos == 0 else "exactly-once-state" if protocol == "5" else "at-least-once"
    delivery = table.choice("delivery", most, DELIVERIES)
    if not table.has("delivery"):
        return delivery
    if not table.problems.clean(table.at("delivery"), table.at("qos"), table.at("protocol")):
        return delivery
    if delivery == "realtime" and table.has("qos") and qos == 1:
        table.note("qos", 'expected 0 with delivery = "realtime", got 1; leave it out, or promise more')
    elif delivery != "realtime" and qos == 0:
        table.note("qos", f'expected 1 with delivery = "{delivery}", got 0; leave it out')
    elif delivery == "exactly-once-state" and protocol != "5":
        table.note(
            "delivery",
            f'expected protocol = "5" with "exactly-once-state", got "{protocol}"; '
            'MQTT 3.1.1 can promise "at-least-once"',
        )
    elif delivery == "exactly-once-state" and expiry_ns == 0:
        table.note(
            "session_expiry", 'expected more than "0s" with delivery = "exactly-once-state": the broker must '
            "keep what this client has not acknowledged",
        )  # fmt: skip
    return delivery


def _host(table: Table) -> str:
    what = "a host name or address"
    host = table.text("host", "localhost", what=what)
    if "@" in host or "/" in host:
        # Such a text may carry a password, so it is not repeated.
        table.note("host", f"expected {what} without a scheme or an account, got a URL")
    elif not re.fullmatch(r"[A-Za-z0-9_.:%\-]{1,255}", host):
        table.note("host", f"expected {what}, got {describe(host)}")
    else:
        return host
    return "localhost"


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _tls(table: Table, base: Path) -> TlsConfig:
    config = TlsConfig(
        ca=existing_file(table, "ca", base, "a file of trusted certificates"),
        cert=existing_file(table, "cert", base, "this device's certificate"),
        key=existing_file(table, "key", base, "the certificate's private key"),
        insecure=table.boolean("insecure", default=False),
    )
    if table.has("cert") != table.has("key"):
        missing, there = ("key", "cert") if table.has("cert") else ("cert", "key")
        table.note(missing, f"missing; expected together with {there}")
    if config.insecure and table.has("ca"):
        table.note("insecure", "expected false where ca is given: without the check ca has no use")
    table.close()
    return config


def default_client_id(store: Path, machine_ids: Sequence[Path] = _MACHINE_IDS) -> str:
    """`edge-rnn-` and 12 hex digits that stay the same for this machine and this store.

    The machine's id is hashed, never shown; the host name is no part of it. The store's path is, because
    two clients with one id throw each other out for ever, and two daemons of one machine cannot share a
    store.
    """
    machine = ""
    for path in machine_ids:
        try:
            machine = path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if machine:
            break
    seed = f"edge-rnn\0{machine or uuid.getnode()}\0{store}"
    return f"edge-rnn-{hashlib.sha256(seed.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"
