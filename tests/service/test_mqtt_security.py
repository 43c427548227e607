"""Passwords and TLS: verified by default, refused clearly, never shown."""

from __future__ import annotations

import io
import ssl
import subprocess
from pathlib import Path

import pytest

from edge_rnn.errors import ConfigError, CredentialsError
from edge_rnn.files.config_types import Secret, TlsConfig
from tests.support import need
from tests.support.link import BOTH, make, run
from tests.support.mosquitto import Mosquitto
from tests.support.mqtt_peer import Peer


@BOTH
def test_wrong_password_is_a_clear_error_and_a_right_one_connects(tmp_path, protocol) -> None:
    """F12b."""
    secrets = tmp_path / "passwords"
    subprocess.run([need.program("mosquitto_passwd"), "-b", "-c", str(secrets), "pump", "right"], check=True)
    with Mosquitto(tmp_path, anonymous=False, extra=[f"password_file {secrets}"]) as broker:
        good = make(broker.port, "a", protocol=protocol, username="pump", password=Secret("right"))
        run(good, lambda _: good.connected)
        good.close([])
        out = io.StringIO()
        bad = make(broker.port, "a", protocol=protocol, username="pump", password=Secret("wrong"), out=out)
        with pytest.raises(CredentialsError, match="refused the credentials") as caught:
            run(bad, lambda _: False, seconds=20)
        assert caught.value.exit_code == 77
        assert "'pump'" in str(caught.value)
        assert "wrong" not in str(caught.value) + out.getvalue()
        assert "correct the name or the password" in str(caught.value)
        assert "credentials refused" in out.getvalue()
        assert "trying again" not in out.getvalue()
        bad.close([])


def certificates(folder: Path) -> None:
    """A CA, a server certificate for localhost and one for another name, all made here and now."""
    openssl = need.program("openssl")

    def call(*words: str) -> None:
        subprocess.run([openssl, *words], cwd=folder, check=True, capture_output=True)

    call("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
         "-subj", "/CN=Test CA")  # fmt: skip
    for name, host in (("server", "localhost"), ("other", "elsewhere.example"), ("client", "device")):
        (folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{host}\n")
        call("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
             "-subj", f"/CN={host}")  # fmt: skip
        call("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
             "-days", "2", "-out", f"{name}.pem", "-extfile", f"{name}.ext")  # fmt: skip


def test_tls_verifies_authority_and_name_and_can_show_a_certificate(tmp_path) -> None:
    certificates(tmp_path)
    listener = [
        f"cafile {tmp_path}/ca.pem",
        f"certfile {tmp_path}/server.pem",
        f"keyfile {tmp_path}/server.key",
        "require_certificate true",
    ]
    trust = TlsConfig(ca=tmp_path / "ca.pem", cert=tmp_path / "client.pem", key=tmp_path / "client.key")
    peer_tls = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    peer_tls.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    with Mosquitto(tmp_path, listener=listener) as broker:
        for protocol in ("5", "3.1.1"):
            link = make(broker.port, "a", host="localhost", tls=trust, protocol=protocol)
            run(link, lambda _, link=link: link.subscribed)
            with Peer(broker.port, host="localhost", tls=peer_tls) as peer:
                large = bytes(60_000)  # several TLS records: what is decrypted must not wait for the socket
                for _ in range(5):
                    peer.send("a", large)
            assert [len(m.payload) for m in run(link, lambda m: len(m) == 5)] == [60_000] * 5
            link.close([])
        out = io.StringIO()
        untrusting = make(broker.port, "a", host="localhost", tls=TlsConfig(), out=out)
        run(untrusting, lambda _: untrusting.counters.failed_attempts >= 1)
        assert "certificate is not trusted" in out.getvalue()
        assert "set mqtt.tls.ca" in out.getvalue()
        untrusting.close([])


def test_tls_refuses_a_certificate_for_another_name_unless_told(tmp_path) -> None:
    certificates(tmp_path)
    listener = [
        f"cafile {tmp_path}/ca.pem",
        f"certfile {tmp_path}/other.pem",
        f"keyfile {tmp_path}/other.key",
    ]
    with Mosquitto(tmp_path, listener=listener) as broker:
        out = io.StringIO()
        strict = make(broker.port, "a", host="localhost", tls=TlsConfig(ca=tmp_path / "ca.pem"), out=out)
        run(strict, lambda _: strict.counters.failed_attempts >= 1)
        assert "not trusted" in out.getvalue()
        assert "localhost" in out.getvalue()
        strict.close([])
        loose = make(broker.port, "a", host="localhost", tls=TlsConfig(insecure=True))
        run(loose, lambda _: loose.connected)
        loose.close([])


@BOTH
def test_a_plain_connection_to_a_tls_port_names_tls(tmp_path, protocol) -> None:
    certificates(tmp_path)
    listener = [f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key"]
    with Mosquitto(tmp_path, listener=listener) as broker:
        out = io.StringIO()
        plain = make(broker.port, "a", protocol=protocol, out=out)
        run(plain, lambda _: plain.counters.failed_attempts >= 1)
        assert "if this is its TLS port, add [mqtt.tls]" in out.getvalue()
        assert ("does it speak MQTT 5?" in out.getvalue()) == (protocol == "5")
        plain.close([])


def test_tls_to_a_plain_port_names_tls(tmp_path) -> None:
    with Mosquitto(tmp_path) as broker:
        out = io.StringIO()
        link = make(broker.port, "a", host="localhost", tls=TlsConfig(), out=out)
        run(link, lambda _: link.counters.failed_attempts >= 1)
        assert "TLS" in out.getvalue()
        assert "is mqtt.port the broker's TLS port?" in out.getvalue()
        link.close([])


def test_unusable_certificate_files_are_config_errors(tmp_path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for tls, key in (
        (TlsConfig(ca=junk), "mqtt.tls.ca"),
        (TlsConfig(ca=tmp_path / "absent.pem"), "mqtt.tls.ca"),
        (TlsConfig(cert=junk, key=junk), "mqtt.tls.cert, key"),
    ):
        with pytest.raises(ConfigError, match=key):
            make(1, "a", tls=tls)
