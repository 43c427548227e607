"""The options of verbs that talk to a broker without a configuration, and what they mean together."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_rnn.errors import ConfigError
from edge_rnn.files.config_types import MqttConfig, Secret, TlsConfig

_PORT, _TLS_PORT = 1883, 8883


def add_broker_options(parser: argparse.ArgumentParser) -> None:
    """`--broker`, `--username`, `--password-file`, `--tls`, `--ca`, `--protocol`."""
    parser.add_argument(
        "--broker", metavar="HOST[:PORT]", help="the broker (default: localhost:1883, or 8883 with TLS)"
    )
    parser.add_argument("--username", metavar="NAME", help="account at the broker")
    parser.add_argument("--password-file", metavar="FILE", help="a file with its password in one line")
    parser.add_argument("--tls", action="store_true", help="encrypted, and verified")
    parser.add_argument("--ca", metavar="FILE", help="certificates to trust, PEM; implies --tls")
    parser.add_argument("--protocol", choices=("5", "3.1.1"), default="5", help="MQTT version (default: 5)")


def broker_of(args: argparse.Namespace) -> MqttConfig:
    """The connection these options describe.

    Raises:
        ConfigError: no such port, unreadable password or certificates.
    """
    encrypted = args.tls or args.ca is not None
    host, port = _address(args.broker or "localhost", _TLS_PORT if encrypted else _PORT)
    password = None
    if args.password_file is not None:
        if args.username is None:
            raise ConfigError("--password-file: expected together with --username")
        password = _password(args.password_file)
    if args.ca is not None and not Path(args.ca).is_file():
        raise ConfigError(f"--ca: expected a file of certificates, got no such file: {args.ca}")
    return MqttConfig(
        host=host,
        port=port,
        protocol=args.protocol,
        username=args.username,
        password=password,
        tls=TlsConfig(ca=None if args.ca is None else Path(args.ca)) if encrypted else None,
    )


def _address(text: str, default: int) -> tuple[str, int]:
    """Host and port of `host`, `host:port`, `[address]:port` or a bare IPv6 address."""
    host, port = text, ""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host or "/" in text or "@" in text:
        raise ConfigError("--broker: expected HOST or HOST:PORT, without a scheme or an account")
    if not port:
        return host, default
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ConfigError(f"--broker: expected a port from 1 to 65535, got {port!r}")
    return host, int(port)


def _password(path: str) -> Secret:
    try:
        text = Path(path).read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"--password-file: expected a readable file, got {path}: {reason}") from None
    if not text or "\n" in text:
        raise ConfigError(f"--password-file: expected a password in one line of {path}, got something else")
    return Secret(text)
