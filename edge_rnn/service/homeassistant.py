"""Home Assistant's MQTT device discovery: one device a stream group, three entities a stream.

A group is announced in one retained message on `<prefix>/device/<id>/config`; its components are, per stream,

    <stream>_anomaly   binary_sensor, device class problem: an alarm is on     from <base>/<stream>/state
    <stream>_fault     binary_sensor, device class problem: a sensor's fault   from <base>/<stream>/state
    <stream>_score     sensor                                                  from <base>/<stream>/score

with `<base>/status` as availability. A stream that is forgotten is removed as the documentation says: its
components are sent once with nothing but their platform, then left out; a group that is gone, by an empty
retained message. The topics announced are remembered by the daemon over restarts (`topics`), so that a group
taken out of the configuration while it was down is removed, too.

Messages are sent when they change, after every connection, and when Home Assistant says that it has started
(`<prefix>/status`: `online`). `due` gives what is to be sent; what could not be sent is put back with
`again`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from edge_rnn.files.config_types import HomeAssistantConfig
from edge_rnn.service.outputs import Publication

_ONLINE: Final = b"online"
_MANUFACTURER: Final = "edge-rnn"
_URL: Final = "https://pypi.org/project/edge-rnn/"
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_PLATFORMS: Final = {"anomaly": "binary_sensor", "fault": "binary_sensor", "score": "sensor"}


def object_id(text: str) -> str:
    """`text` with the characters that an id may have; if that changes it, made distinct by a hash."""
    safe = _UNSAFE.sub("_", text)
    if safe == text and len(text) <= 64:
        return text
    return f"{safe[:48]}_{hashlib.blake2s(text.encode(), digest_size=4).hexdigest()}"


class _Group:
    """One device: its streams by component prefix, and components to take away."""

    __slots__ = ("dirty", "gone", "left_out", "model", "streams", "told_gone")

    def __init__(self, model: str) -> None:
        self.model = model
        self.streams: dict[str, str] = {}
        self.gone: set[str] = set()
        self.told_gone: set[str] = set()
        self.left_out = 0
        self.dirty = True


class Discovery:
    """What Home Assistant is to know.

    Args:
        config: `[homeassistant]`.
        base: first level(s) of the output topics.
        groups: the stream groups and the names of their models.
        version: of this package.
        announced: topics that an earlier process has announced (`topics`).
    """

    def __init__(
        self,
        config: HomeAssistantConfig,
        base: str,
        groups: dict[str, str],
        version: str,
        announced: Iterable[str] = (),
    ) -> None:
        self.birth, self.online = f"{config.prefix}/status", _ONLINE
        self._prefix = config.prefix
        self._base = base
        self._most = config.max_streams
        self._version = version
        self._node = object_id(base)
        self._groups = {name: _Group(model) for name, model in groups.items()}
        own = {self._topic(name) for name in groups}
        self._stale = [topic for topic in announced if topic and topic not in own]

    def _topic(self, group: str) -> str:
        return f"{self._prefix}/device/{self._node}_{object_id(group)}/config"

    def topics(self) -> list[str]:
        """The topics that hold a retained message because of us."""
        return [self._topic(name) for name, group in self._groups.items() if group.streams] + self._stale

    @property
    def left_out(self) -> int:
        """Streams that are not announced because their group has too many."""
        return sum(group.left_out for group in self._groups.values())

    def see(self, stream: str) -> None:
        """A stream that has a state."""
        group = self._groups.get(stream.split("/", 1)[0])
        if group is None:
            return
        at = object_id(stream)
        if at in group.streams:
            return
        if len(group.streams) >= self._most:
            group.left_out += 1
            return
        group.streams[at] = stream
        group.gone.discard(at)
        group.dirty = True

    def forget(self, stream: str) -> None:
        """A stream that has none any more."""
        group = self._groups.get(stream.split("/", 1)[0])
        at = object_id(stream)
        if group is not None and group.streams.pop(at, None) is not None:
            group.gone.add(at)
            group.dirty = True

    def again(self, topic: str | None = None) -> None:
        """Send everything once more, or what belongs to `topic`."""
        for name, group in self._groups.items():
            if topic is None or self._topic(name) == topic:
                group.dirty = True
                group.gone |= group.told_gone - group.streams.keys()

    def due(self) -> list[Publication]:
        """The messages to send now, retained."""
        found = [(topic, b"") for topic in self._stale]
        self._stale = []
        for name, group in self._groups.items():
            if group.dirty and (group.streams or group.gone):
                # Taking away needs a second message without the components, next time.
                group.dirty = bool(group.gone)
                found.append((self._topic(name), self._message(name, group) if group.streams else b""))
                group.told_gone, group.gone = group.gone, set()
        return found

    def _message(self, name: str, group: _Group) -> bytes:
        components: dict[str, Any] = {}
        for at in sorted(group.gone):
            components |= {f"{at}_{kind}": {"p": platform} for kind, platform in _PLATFORMS.items()}
        for at, stream in group.streams.items():
            components |= self._entities(at, stream, name)
        message = {
            "dev": {
                "ids": f"{self._node}_{object_id(name)}",
                "name": name,
                "mf": _MANUFACTURER,
                "mdl": group.model or "recurrent anomaly detector",
                "sw": self._version,
            },
            "o": {"name": "edge-rnn", "sw": self._version, "url": _URL},
            "availability": [{"topic": f"{self._base}/status"}],
            "cmps": components,
            "qos": 1,
        }
        return msgspec.json.encode(message)

    def _entities(self, at: str, stream: str, group: str) -> dict[str, Any]:
        state, score = f"{self._base}/{stream}/state", f"{self._base}/{stream}/score"
        label = stream.removeprefix(group).removeprefix("/") or group
        unique = f"{self._node}_{at}"

        def entity(kind: str, name: str, topic: str, template: str, **more: str) -> dict[str, Any]:
            return {
                "p": _PLATFORMS[kind], "name": f"{label} {name}", "unique_id": f"{unique}_{kind}",
                "state_topic": topic, "value_template": template, **more,
            }  # fmt: skip

        return {
            f"{at}_anomaly": entity(
                "anomaly", "anomaly", state, "{{ 'ON' if value_json.alarm else 'OFF' }}",
                device_class="problem",
            ),
            f"{at}_fault": entity(
                "fault", "fault", state, "{{ 'ON' if value_json.status == 'fault' else 'OFF' }}",
                device_class="problem", json_attributes_topic=state,
            ),
            f"{at}_score": entity(
                "score", "score", score, "{{ value_json.score }}", state_class="measurement"
            ),
        }  # fmt: skip
