"""How long Hypothesis may look: `--hypothesis-profile=nightly` takes minutes, `planted` is for the planted bugs."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]

settings.register_profile("supervisor", deadline=None, suppress_health_check=SLOW, print_blob=True)
settings.register_profile("nightly", deadline=None, suppress_health_check=SLOW, print_blob=True, max_examples=20_000)
settings.register_profile(
    "planted",
    deadline=None,
    suppress_health_check=SLOW,
    max_examples=500,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # that it fails is enough: no need for the shortest way
)
