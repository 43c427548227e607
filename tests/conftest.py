"""What holds for every test: how hypothesis searches.

No deadline: a machine with one busy core is not a wrong program. In CI the same examples every time.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_RELAXED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("local", **_RELAXED)  # type: ignore[arg-type]
settings.register_profile("ci", derandomize=True, **_RELAXED)  # type: ignore[arg-type]
settings.load_profile("ci" if os.environ.get("CI") else "local")
