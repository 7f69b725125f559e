"""
Is it alive, is it ready, has it started: the checks behind each probe, and how they are printed.

Owns the rules of DESIGN §7: draining is live and not ready; a reload that failed is a warning; what a shared
database does must never make it look dead.
Pure: the state and the time come in; nobody is asked.
"""

from __future__ import annotations

from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.observer.state import State

SILENT = 10.0  # seconds without an answer from the supervisor's loop


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str
    is_good: bool
    reason: str = ""  # what is wrong, in prod-run's own words
    is_warning: bool = False  # it may be bad without the probe being bad
    details: str = ""  # in the app's words, and so not for everybody
    age: float | None = None  # seconds since somebody looked; None: it is so now


class Probe(NamedTuple):
    """All that one path looks at."""

    name: str
    checks: tuple[Check, ...]

    @property
    def is_good(self) -> bool:
        """Say whether the answer is 200."""
        return all(check.is_good or check.is_warning for check in self.checks)


def alive(silent_for: float) -> Probe:
    """Look at the supervisor: for how many seconds has it left a question without an answer."""
    is_good = silent_for < SILENT
    return Probe("livez", (Check("supervisor", is_good, f"no answer for {silent_for:.0f}s"),))


def healthy(state: State, silent_for: float, now: float) -> Probe:
    """Look at the same, and show the app's own checks, whose failure is no reason to start anything anew."""
    own = (check._replace(is_warning=True) for check in of_the_app(state, now))
    return Probe("healthz", (*alive(silent_for).checks, *own))


def ready(state: State, now: float) -> Probe:
    """Look at whether a request would be answered."""
    is_any_up = any(w.generation == state.current and w.state in ("ready", "serving") for w in state.workers)
    workers = Check("workers", state.is_ready or is_any_up, "no worker is ready")
    checks = [
        Check("generation", state.is_committed, "none is committed yet"),
        workers if state.is_committed else workers._replace(is_good=False),
        Check("shutdown", not state.is_draining, "draining"),
    ]
    stale = next((g for g in state.generations if g.number == state.current and g.stale_since is not None), None)
    if state.is_committed:
        reason = f"the last one failed: kept generation {state.current}"
        checks.append(
            Check("reload", stale is None, reason, is_warning=True, details=stale.stale_because if stale else "")
        )
        respawn = next((g.cannot_respawn for g in state.generations if g.number == state.current), "")
        checks.append(Check("respawn", not respawn, "reload when the code is right", is_warning=True, details=respawn))
    return Probe("readyz", (*checks, *of_the_app(state, now)))


def of_the_app(state: State, now: float) -> list[Check]:
    """Return the app's own checks as they ended last; one that is not required only warns."""
    found = []
    for each in state.checks:
        check = Check(each.name, bool(each.is_good), "no result yet", not each.is_required, each.details)
        if each.is_good is not None:
            age = max(0.0, now - each.at)
            check = check._replace(reason=f"{each.reason}, {age:.0f}s ago", age=age)
        found.append(check)
    return found


def started(state: State) -> Probe:
    """Look at whether a generation was ever ready; it stays so."""
    return Probe("startupz", (Check("generation", state.is_committed, "none is committed yet"),))


def text(probe: Probe, *, is_verbose: bool, is_private: bool) -> str:
    """Print it in Kubernetes' form; a failure is always verbose."""
    if probe.is_good and not is_verbose:
        return "ok\n"
    lines = [line(check, is_private=is_private) for check in probe.checks]
    return "\n".join([*lines, f"{probe.name} check {'passed' if probe.is_good else 'failed'}", ""])


def line(check: Check, *, is_private: bool) -> str:
    """Print one check."""
    if check.is_good:
        return f"[+]{check.name} ok{'' if check.age is None else f', {check.age:.0f}s ago'}"
    details = f": {check.details if is_private else 'reason withheld'}" if check.details else ""
    return f"[{'!' if check.is_warning else '-'}]{check.name} failed: {check.reason}{details}"
