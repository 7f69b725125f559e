"""
How prod-run is, in one sentence for somebody who was just woken up, and what else that person should know.

Owns the sentences, and which state looks how.  The pill says what `/readyz` answers.
Pure.
"""

from __future__ import annotations

from launcher.lean import NamedTuple
from launcher.observer import probes
from launcher.observer.page import words
from launcher.observer.page.words import BAD, BUSY, OK, QUIET, WARNING, count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.observer.endpoints import Known
    from launcher.observer.state import Generation, State

RECENTLY = 600.0  # seconds
REMEMBERED = 50  # crashes that the supervisor remembers
UP = ("ready", "serving")
LEAVING = ("draining", "dumping", "killed", "stuck")


class Note(NamedTuple):
    """One thing beside the sentence."""

    level: str
    text: str
    at: float = 0.0  # Unix time; 0: now
    details: str = ""  # in the app's words


class Headline(NamedTuple):
    """The top of the page."""

    level: str
    pill: str
    sentence: str
    since: float  # Unix time; 0: not known
    notes: tuple[Note, ...]


def headline(known: Known) -> Headline:
    """Say how it is."""
    state = known.state
    probe = probes.ready(state, known.monotonic)
    if known.silent_for >= probes.SILENT:
        text = f"prod-run does not answer: its supervisor is silent for {words.span(known.silent_for)}."
        return Headline(BAD, "Not answering", f"{text} What stands below is older.", 0.0, _notes(known))
    level, text = _sentence(state)
    if probe.is_good:
        is_fine = level == OK and all(check.is_good for check in probe.checks)
        pill = "Ready" if is_fine else "Ready, with warnings"
        level = OK if is_fine else WARNING
    else:
        pill = "Not ready"
        level = BUSY if level == BUSY else BAD
    return Headline(level, pill, text, _since(known), _notes(known))


def finished(state: State) -> set[int]:
    """Return the slots whose work is done: nobody is in them, and the last one ended well."""
    taken = {worker.slot for worker in state.workers}
    return {slot.number for slot in state.slots if slot.last_exit == "exit 0" and slot.number not in taken}


def up(state: State, generation: int) -> int:
    """Count the slots with a worker of this generation that is ready."""
    slots = {w.slot for w in state.workers if w.generation == generation and w.state in UP}
    return sum(slot < state.wanted for slot in slots | finished(state))


def _sentence(state: State) -> tuple[str, str]:
    if state.is_draining:
        left = len(state.workers)
        doing = "finishes what it holds" if left == 1 else "finish what they hold"
        return BUSY, f"Stopping: {count(left, 'worker')} {doing}, nothing new is taken."
    current = next((each for each in state.generations if each.number == state.current), None)
    if not state.is_committed or current is None:
        first = state.generations[-1] if state.generations else None
        return BUSY, f"Starting: {_progress(state, first)}." if first else "Starting."
    if current.phase == "rolling":
        n = up(state, current.number)
        return OK, f"Serving: generation {current.number} takes over, {n} of {count(state.wanted, 'worker')} so far."
    ready, wanted = up(state, current.number), state.wanted
    if not ready:
        return BAD, f"Not serving: no worker of generation {current.number} is ready."
    if ready < wanted:
        return WARNING, f"Serving with {ready} of {count(wanted, 'worker')}: generation {current.number}."
    required = next((each for each in state.checks if each.is_required and not each.is_good), None)
    if required:
        fails, level = ("has no result yet", BUSY) if required.is_good is None else ("fails", BAD)
        return level, f"Not ready: the app's required check {required.name} {fails}."
    are = "is" if wanted == 1 else "are"
    return OK, f"Serving: generation {current.number}, {ready} of {count(wanted, 'worker')} {are} ready."


def _progress(state: State, generation: Generation) -> str:
    if generation.phase == "preparing":
        return f"generation {generation.number} imports the app"
    return f"generation {generation.number} has {up(state, generation.number)} of {count(state.wanted, 'worker')} ready"


def _since(known: Known) -> float:
    """Say when the generation that serves was committed, as far as that is remembered."""
    state = known.state
    return next((r.at for r in state.reloads if r.generation == state.current and r.result == "committed"), 0.0)


def _notes(known: Known) -> tuple[Note, ...]:
    return (*_of_generations(known), *_of_checks(known), *_of_deaths(known), *_of_lines(known.state))


def _of_generations(known: Known) -> list[Note]:
    state, notes = known.state, []
    for each in state.generations:
        if each.phase in ("preparing", "filling") and state.is_committed:
            notes.append(Note(BUSY, f"A reload is under way: {_progress(state, each)}."))
        if each.number == state.current and each.stale_since is not None:
            last = state.reloads[-1] if state.reloads else None
            result = "rolled back" if last and last.result == "rolled-back" else "rejected"
            at = last.at if last and last.result != "committed" else known.time - known.monotonic + each.stale_since
            text = f"The last reload was {result}: generation {each.number} goes on serving."
            notes.append(Note(WARNING, text, at, each.stale_because))
        if each.number == state.current and each.cannot_respawn:
            text = "A worker that ends cannot be replaced before the next reload."
            notes.append(Note(WARNING, text, details=each.cannot_respawn))
    leaving = sum(worker.state in LEAVING for worker in state.workers)
    if leaving and not state.is_draining:
        notes.append(Note(QUIET, f"{count(leaving, 'worker')} of before {'is' if leaving == 1 else 'are'} leaving."))
    return notes


def _of_checks(known: Known) -> list[Note]:
    clock = words.Clock(known.time, known.monotonic)
    return [
        Note(
            BAD if check.is_required else WARNING,
            f"The app's check {check.name} failed: {check.reason}.",
            clock.unix(check.at),
            check.details,
        )
        for check in known.state.checks
        if check.is_good is False
    ]


def _of_deaths(known: Known) -> list[Note]:
    recent = [each for each in known.state.deaths if each.at > known.time - RECENTLY]
    if not recent:
        return []
    last = recent[-1]
    # Of one slot's worker that crashes ten times no ten workers crash; and no more than so many are remembered.
    at_least = "at least " if len(recent) == len(known.state.deaths) >= REMEMBERED else ""
    text = f"{at_least}{count(len(recent), 'crash', 'crashes')} in the last {words.span(RECENTLY)}"
    return [Note(WARNING, f"{text[0].upper()}{text[1:]}; the last was worker {last.slot}'s, with {last.how}.", last.at)]


def _of_lines(state: State) -> list[Note]:
    lines = state.lines.dropped + state.lines.lost
    return (
        [Note(WARNING, f"{count(lines, 'log line')} could not be written and {'is' if lines == 1 else 'are'} gone.")]
        if lines
        else []
    )
