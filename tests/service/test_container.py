"""The container files by their form; no container engine is expected here, so they are not built or run."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from edge_rnn.files.config import load_config
from edge_rnn.service.http import answers
from tests.support import need

FOLDER = need.ROOT / "edge_rnn" / "service" / "container"
_WORDS = {
    "FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL",
    "ENTRYPOINT", "CMD",
}  # fmt: skip


@pytest.fixture(scope="module")
def stages() -> list[list[tuple[str, str]]]:
    """The Dockerfile's instructions, (word, rest), by stage."""
    text = re.sub(r"^\s*#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    found: list[list[tuple[str, str]]] = []
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest.strip()))
    return found


def of(stage: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for found, rest in stage if found == word]


def test_every_instruction_is_one_of_dockers_and_both_stages_are_debian_slim(
    stages: list[list[tuple[str, str]]],
) -> None:
    assert len(stages) == 2
    assert {word for stage in stages for word, _ in stage} <= _WORDS
    assert all(re.match(r"debian:[a-z]+-slim\b", of(stage, "FROM")[0]) for stage in stages)


def test_what_is_copied_exists_and_is_not_ignored(stages: list[list[tuple[str, str]]]) -> None:
    kept = {
        line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"
    }
    sources = [word for rest in of(stages[0], "COPY") for word in rest.split()[:-1]]
    assert sources
    assert set(sources) == kept
    assert all((need.ROOT / source).exists() for source in sources)
    # What the build backend reads must be among it.
    project = tomllib.loads((need.ROOT / "pyproject.toml").read_text())
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= set(sources)
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(sources)


def test_it_runs_the_daemon_and_not_as_root(stages: list[list[tuple[str, str]]]) -> None:
    words = [word for word, _ in stages[1]]
    (user,) = of(stages[1], "USER")
    assert user == "edge-rnn"
    assert f"--uid 10001 --no-create-home --shell /usr/sbin/nologin {user}" in " ".join(of(stages[1], "RUN"))
    assert max(i for i, word in enumerate(words) if word == "RUN") < words.index("USER")
    assert json.loads(of(stages[1], "ENTRYPOINT")[0]) == ["edge-rnn"]
    assert json.loads(of(stages[1], "CMD")[0])[0] == "run"
    environment = dict(part.split("=", 1) for part in shlex.split(of(stages[1], "ENV")[0]))
    (volume,) = of(stages[1], "VOLUME")
    assert environment["STATE_DIRECTORY"] == volume
    assert environment["NUMBA_CACHE_DIR"].startswith(volume)


def test_the_health_check_asks_what_the_daemon_answers(stages: list[list[tuple[str, str]]]) -> None:
    (check,) = of(stages[1], "HEALTHCHECK")
    command = json.loads(check[check.index("CMD ") + 4 :])
    compile(command[2], "HEALTHCHECK", "exec")
    port, path = re.search(r"127\.0\.0\.1:(\d+)(/\w+)'", command[2]).groups()  # type: ignore[union-attr]
    assert path in answers(lambda: None)  # type: ignore[arg-type,return-value]
    assert of(stages[1], "EXPOSE") == [port]
    config = tomllib.loads((FOLDER / "config" / "config.toml").read_text())
    assert config["http"]["listen"] == f"0.0.0.0:{port}"


def compose() -> dict[str, Any]:
    yaml = need.module("yaml")
    document: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return document


def test_the_compose_file_names_what_is_there() -> None:
    services = compose()["services"]
    assert set(services) == {"broker", "daemon"}
    daemon = services["daemon"]
    assert (FOLDER / daemon["build"]["context"]).resolve() == need.ROOT
    assert (need.ROOT / daemon["build"]["dockerfile"]).is_file()
    assert daemon["build"]["platforms"] == ["linux/amd64", "linux/arm64"]
    volumes = [v.split(":") for service in services.values() for v in service["volumes"]]
    places = [source for source, *_ in volumes if source.startswith(".")]
    assert len(places) == 3
    assert all((FOLDER / place).exists() for place in places)
    assert {source for source, *_ in volumes if not source.startswith(".")} == set(compose()["volumes"])
    assert daemon["read_only"]
    assert daemon["cap_drop"] == ["ALL"]


def test_its_configuration_is_valid_where_compose_puts_it(tmp_path: Path) -> None:
    places = dict(v.split(":")[1::-1] for v in compose()["services"]["daemon"]["volumes"])
    models = (FOLDER / places["/models"]).resolve()
    text = (FOLDER / places["/etc/edge-rnn"] / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(text.replace('"/models/', f'"{models}/'))
    config = load_config(tmp_path / "config.toml", {"STATE_DIRECTORY": "/var/lib/edge-rnn"})
    assert config.mqtt.host in compose()["services"]
    assert config.store.path == Path("/var/lib/edge-rnn/edge-rnn.db")
    assert config.streams[0].model.is_file()
