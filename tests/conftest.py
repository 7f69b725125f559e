"""
What every test has: how Hypothesis looks for examples.

A limit of time would be a test of the machine, which runs much else beside: there is none here.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# Above what Hypothesis chose itself: it has another profile in CI, whose examples are always the same.
settings.register_profile(
    "usual", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("usual")
