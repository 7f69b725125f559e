"""
What happened so far, for whoever asks later: reloads and their results, ends of workers, sockets.

Owns the sums and the last few of each; it learns from the lines that prod-run says anyway.
Pure: records in, facts out; nothing is decided by them.
"""

from __future__ import annotations

from launcher import protocol
from launcher.lean import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.logs.formats import Record

KEPT = 20  # reloads
DETAILED = 3  # reloads that failed, with what there is to read of why: all of it is in the log
LONGEST_DETAIL = 4000  # characters
DEATHS = 50  # ends of workers that nobody asked for
RESULTS = ("committed", "rejected", "rolled-back", "pre-empted")


def result_of(record: Record) -> str:
    """Return the result of a start or reload that a line says; empty if it says none, or none that is final."""
    if record.event == "rolled out":
        return "committed"
    if record.event == "committed" and "rolling" in dict(record.fields):
        return ""  # with the first workers of a rolling reload: a later one may fail
    return record.event if record.event in RESULTS else ""


class Reload(NamedTuple):
    """How a start or reload ended."""

    generation: int
    result: str
    reason: str
    origin: str  # who asked for it
    at: float  # Unix time
    took: float  # seconds; 0: not known
    detail: str = ""  # the app's traceback, or every problem of its configuration; of the last failures only


class Death(NamedTuple):
    """The end of a worker that nobody had told to end."""

    slot: int
    generation: int
    how: str
    at: float  # Unix time


class Slot(NamedTuple):
    """A worker's place, over all the lives in it."""

    restarts: int = 0  # ends that nobody asked for
    last_exit: str = ""
    last_exit_at: float = 0.0  # Unix time
    cpu: float = 0.0  # seconds that those who ended had used


class History:
    """Everything that a snapshot tells beyond the present."""

    __slots__ = ("_began", "deaths", "last_deaths", "listeners", "reloads", "results", "slots")

    def __init__(self) -> None:
        self.reloads: list[Reload] = []  # the oldest first
        self.results: dict[str, int] = {}  # how often each
        self.deaths: dict[str, int] = {}  # of workers that nobody had told to end, by reason
        self.last_deaths: list[Death] = []  # the oldest first
        self.slots: dict[int, Slot] = {}
        self.listeners: dict[str, str] = {}  # name → address
        self._began: dict[int, tuple[float, str]] = {}  # by generation: when, and who asked

    def hear(self, record: Record) -> None:
        """Learn from one line."""
        facts = dict(record.fields)
        number = int(str(facts.get("generation", 0)))
        slot = int(str(facts.get("slot", -1)))
        match record.event:
            case "listening":
                self.listeners[str(facts["name"])] = str(facts["address"])
            case "preparing":
                self._began[number] = (record.time, str(facts["origin"]))
                for forgotten in [each for each in self._began if each <= number - KEPT]:
                    del self._began[forgotten]
            case "committed" | "rolled out" | "rejected" | "rolled-back" | "pre-empted":
                self._ended(number, record, str(facts.get("reason", "")))
            case "ended worker" | "finished worker":
                self._left(slot, facts, record.time)
            case "lost worker":
                self._left(slot, facts, record.time)
                self._died(Death(slot, number, str(facts["how"]), record.time))
            case "lost worker with its zygote":
                self._died(Death(slot, number, "its zygote ended", record.time))
            case "stalled":
                self._died(Death(slot, number, "stalled", record.time))
            case "gave up" if slot >= 0:
                self._died(Death(slot, number, "gave up", record.time))

    def _ended(self, number: int, record: Record, reason: str) -> None:
        result = result_of(record)
        if not result:
            return
        began, origin = self._began.get(number, (record.time, ""))
        self.results[result] = self.results.get(result, 0) + 1
        detail = protocol.shorten(record.detail, LONGEST_DETAIL)
        self.reloads.append(Reload(number, result, reason, origin, record.time, record.time - began, detail))
        detailed = [index for index, reload in enumerate(self.reloads) if reload.detail]
        for index in detailed[:-DETAILED]:
            self.reloads[index] = self.reloads[index]._replace(detail="")
        if len(self.reloads) > KEPT:
            # The last that was committed stays: it tells since when what serves has been there.
            is_last = [reload.result for reload in self.reloads].count("committed") == 1
            del self.reloads[1 if is_last and self.reloads[0].result == "committed" else 0]

    def _left(self, slot: int, facts: dict[str, object], time: float) -> None:
        before = self.slots.get(slot, Slot())
        cpu = before.cpu + float(str(facts.get("cpu", "0s")).removesuffix("s"))
        self.slots[slot] = before._replace(last_exit=str(facts["how"]), last_exit_at=time, cpu=cpu)

    def _died(self, death: Death) -> None:
        slot, how = death.slot, death.how
        self.last_deaths.append(death)
        del self.last_deaths[:-DEATHS]
        # What stands in brackets may differ each time, and each reason is a series for ever.
        reason = "out of memory" if "memory" in how else how.partition(" (")[0]
        self.deaths[reason] = self.deaths.get(reason, 0) + 1
        before = self.slots.get(slot, Slot())
        self.slots[slot] = before._replace(restarts=before.restarts + 1)
