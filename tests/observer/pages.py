"""The page at `/` as tests need it: rendered from any state, and taken apart."""

from __future__ import annotations

from html.parser import HTMLParser

from launcher.observer import endpoints
from launcher.observer.endpoints import About, Known
from launcher.observer.http import Reply, Request
from launcher.observer.samples import Sample
from launcher.observer.state import AppCheck, Death, Generation, Lines, Listener, Reload, Slot, State, Worker
from launcher.observer.tail import Found, Wanted

NOW, MONOTONIC = 1_800_000_000.0, 5000.0
SERVING = State(
    is_ready=True,
    is_committed=True,
    wanted=2,
    current=3,
    generations=(Generation(3, "committed", "SIGHUP", 4900.0, 77, "warm"),),
    workers=(Worker(0, 3, 42, "serving", 4900.0), Worker(1, 3, 43, "serving", 4950.0)),
    reloads=(Reload(3, "committed", "", "SIGHUP", NOW - 100, 1.5),),
    listeners=(Listener("web", "127.0.0.1:80", 7),),
)


class Page(HTMLParser):
    """What stands in a page: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.raw = text
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.rows: dict[str, list[list[str]]] = {}  # by table
        self.words: dict[str, str] = {}  # by the id of the element they stand in
        self._open: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        named = {name: value or "" for name, value in attrs}
        self.elements.append((tag, named))
        if tag == "table":
            self.rows[named["id"].removesuffix("-table")] = []
        if tag == "tr":
            self.rows[next(reversed(self.rows))].append([])
        if tag in ("td", "th"):
            self.rows[next(reversed(self.rows))][-1].append("")
        if tag not in ("meta", "link", "input", "br"):
            self._open.append((tag, named.get("id", "")))

    def handle_endtag(self, tag: str) -> None:
        """Note its end; what is not closed in order would be found here."""
        opened, _ = self._open.pop()
        assert opened == tag, f"</{tag}> ends <{opened}>"

    def handle_data(self, data: str) -> None:
        """Note text."""
        for _, name in self._open:
            if name:
                self.words[name] = self.words.get(name, "") + data
        if any(tag in ("td", "th") for tag, _ in self._open) and not any(tag == "title" for tag, _ in self._open):
            self.rows[next(reversed(self.rows))][-1][-1] += data

    def all(self, name: str) -> list[dict[str, str]]:
        """Return the attributes of each element of a kind."""
        return [attributes for tag, attributes in self.elements if tag == name]


def known(state: State = SERVING, silent_for: float = 0.0, log: bytes = b"", **about: object) -> Known:
    """Know a state."""
    uses = {
        w.pid: [Sample(MONOTONIC - 2, 40 << 20, 1.0), Sample(MONOTONIC, 41 << 20, 1.5, 0.25)] for w in state.workers
    }

    def lines(wanted: Wanted) -> Found:
        return Found(b"".join(log.splitlines(keepends=True)[-wanted.lines :]), "", 0)

    one = About("shop", 4000.0, 7, **about)  # type: ignore[arg-type]
    return Known(one, state, MONOTONIC, NOW, silent_for, None, log=lines, look=lambda _: uses)


def reply(one: Known, *options: str, is_private: bool = False) -> Reply:
    """Answer who asks for `/`."""
    found = endpoints.find("/")
    assert found is not None
    answer = found[0].answer(one, Request("GET", "/", options, "x", "", "", True), {}, is_private)
    assert isinstance(answer, Reply)
    return answer


def page(one: Known, *options: str, is_private: bool = False) -> Page:
    """Return the page, taken apart."""
    return Page(reply(one, *options, is_private=is_private).body.decode())


def hostile(words: str) -> Known:
    """Know nothing but these words, wherever an app, its errors or a client can have their way."""
    state = State(
        sentence=words,
        is_committed=True,
        current=1,
        wanted=2,
        generations=(Generation(1, words, words, 0.0, 5, words, 1.0, words, words),),
        workers=(Worker(0, 1, 42, words, 0.0, words),),
        slots=(Slot(0, 1, words, NOW), Slot(1, 2, words, NOW)),
        reloads=(Reload(1, words, f"{words}\n{words}", words, NOW, 1.0),),
        reloads_by_result=((words, 1),),
        deaths=(Death(0, 1, words, NOW),),
        deaths_by_reason=((words, 1),),
        listeners=(Listener(words, words, 1),),
        checks=(AppCheck(words, True, False, words, words, 0.1, 1.0, 0),),
        lines=Lines(4, 3, 2, 1),
    )
    one = known(state, log=f"{words}\n".encode("utf-8", "surrogateescape"), settings=((words, words, words),))
    return one._replace(config=((words, words, words),), about=one.about._replace(name=words))
