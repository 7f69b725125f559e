"""
What every test has: how Hypothesis looks for examples.

A limit of time would be a test of the machine, which runs much else beside: there is none here.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# To make a failure small takes minutes, which CI does not have; the blob brings it back elsewhere.
LEFT_OUT = {Phase.shrink} if "CI" in os.environ else set()

# Above what Hypothesis chose itself: it has another profile in CI, whose examples are always the same.
settings.register_profile(
    "usual",
    settings(),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
    phases=[phase for phase in settings().phases if phase not in LEFT_OUT],
)
settings.load_profile("usual")
