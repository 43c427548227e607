"""Files that a configuration names, and the secrets in them.

A password comes from `password_file`, from the environment variable named by `password_env`, or from the
systemd credential `mqtt_password`; it is a `Secret` from the moment it is read, and no message repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edge_rnn.files.config_types import Secret
from edge_rnn.files.config_walk import Table, describe

__all__ = ["existing_file", "password", "secret_file"]


def existing_file(table: Table, key: str, base: Path, what: str) -> Path | None:
    """An existing file, made absolute; None if there is no such key or file (which is noted)."""
    text = table.text(key, None, what=f"the path of {what}")
    if text is None:
        return None
    path = base / text
    try:
        if path.is_file():
            return path
    except OSError as error:
        table.note(key, f"expected {what}, got {describe(str(path))}: {error.strerror}")
        return None
    table.note(key, f"expected {what}, got no such file: {path}")
    return None


def password(table: Table, base: Path, environ: Mapping[str, str], username: str | None) -> Secret | None:
    """The account's password, or None; contradictions are noted."""
    remedy = 'put it into a file and name it: password_file = "mqtt_password", or use password_env'
    table.forbid("password", f"a password does not belong into this file; {remedy}")
    if table.has("password_file") and table.has("password_env"):
        table.note("password_env", "expected either password_file or password_env, got both")
        return None
    name = table.text("password_env", None, what="the name of an environment variable")
    if name is not None:
        # The name is not repeated: someone may have written the password itself here.
        if not environ.get(name):
            table.note("password_env", "expected a variable of the environment, got one that is not set")
            return None
        return _secret(table, "password_env", environ[name])
    if table.has("password_file"):
        file = existing_file(table, "password_file", base, "a file that holds the password")
        return None if file is None else _read_secret(table, "password_file", file)
    credentials = environ.get("CREDENTIALS_DIRECTORY")
    if credentials and username is not None and (path := Path(credentials, "mqtt_password")).is_file():
        return _read_secret(table, "password_file", path)
    return None


def secret_file(table: Table, key: str, base: Path) -> Secret | None:
    """The secret in the file that the key names."""
    file = existing_file(table, key, base, "a file that holds the secret")
    return None if file is None else _read_secret(table, key, file)


def _read_secret(table: Table, key: str, path: Path) -> Secret | None:
    try:
        with path.open("rb") as file:
            text = file.read(4097).decode("utf-8")
    except OSError as error:
        table.note(key, f"expected a readable file, got {path}: {error.strerror}")
        return None
    except UnicodeDecodeError:
        table.note(key, f"expected UTF-8 text in {path}, got other bytes")
        return None
    return _secret(table, key, text.removesuffix("\n").removesuffix("\r"))


def _secret(table: Table, key: str, text: str) -> Secret | None:
    if not 0 < len(text) <= 4096 or "\n" in text or "\0" in text:
        table.note(key, "expected a password of one line of 1 to 4096 characters, got something else")
        return None
    return Secret(text)
