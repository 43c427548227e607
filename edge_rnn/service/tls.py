"""The TLS context of the broker connection: verified by default, TLS 1.2 or newer."""

from __future__ import annotations

import ssl

from edge_rnn.errors import ConfigError
from edge_rnn.files.config_types import TlsConfig


class _Socket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho would leave that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError as error:
            if not isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
                self.close()
            raise


def context(tls: TlsConfig) -> ssl.SSLContext:
    """A client context for `[mqtt.tls]`; `ConfigError` names the key whose file cannot be used."""
    try:
        made = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"mqtt.tls.ca: expected a PEM file of certificates, got {tls.ca} ({_why(error)})"
        ) from None
    made.sslsocket_class = _Socket
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert is not None:
        try:
            # Without a password callback OpenSSL would ask on the terminal and block a daemon.
            made.load_cert_chain(str(tls.cert), None if tls.key is None else str(tls.key), password=str)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"mqtt.tls.cert, key: expected a PEM certificate and its unencrypted key, "
                f"got {tls.cert} and {tls.key} ({_why(error)})"
            ) from None
    if tls.insecure:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _why(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error)[:120]
