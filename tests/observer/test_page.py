"""The page at `/`: what it says, to whom, and that nothing from outside becomes part of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.observer.page import whole
from launcher.observer.page.headline import headline
from launcher.observer.page.private import unquote
from launcher.observer.page.tables import MOST
from launcher.observer.state import AppCheck, Death, Generation, Lines, Reload, Slot, State, Worker
from tests.observer.pages import MONOTONIC, NOW, SERVING, Page, hostile, known, page, reply

ROOT = Path(__file__).parents[2]
TEMPLATE = Path(whole.TEMPLATE).read_text()
STARTING = State(wanted=2, generations=(Generation(1, "preparing", "start", 4990.0),))
STALE = SERVING._replace(
    generations=(SERVING.generations[0]._replace(stale_since=4950.0, stale_because="KeyError: 'hunter2'"),),
    reloads=(*SERVING.reloads, Reload(4, "rejected", "KeyError: 'hunter2'", "SIGHUP", NOW - 50, 1.0)),
)
RELOADING = SERVING._replace(generations=(*SERVING.generations, Generation(4, "preparing", "SIGHUP", 4999.0)))
SHORT = SERVING._replace(
    workers=SERVING.workers[:1], slots=(Slot(1, 3, "SIGSEGV", NOW - 3),), deaths=(Death(1, 3, "SIGSEGV", NOW - 3),)
)
DONE = SERVING._replace(workers=SERVING.workers[:1], slots=(Slot(1, 0, "exit 0", NOW - 3),))
DOWN = SERVING._replace(is_ready=False, workers=())
STOPPING = SERVING._replace(is_draining=True, is_ready=False)
SENTENCES = {
    "starting": (STARTING, "busy", "Not ready", "Starting: generation 1 imports the app."),
    "serving": (SERVING, "ok", "Ready", "Serving: generation 3, 2 of 2 workers are ready."),
    "one worker": (
        SERVING._replace(wanted=1),
        "ok",
        "Ready",
        "Serving: generation 3, 1 of 1 worker is ready.",
    ),
    "reloading": (RELOADING, "ok", "Ready", "Serving: generation 3, 2 of 2 workers are ready."),
    "stale": (STALE, "warn", "Ready, with warnings", "Serving: generation 3, 2 of 2 workers are ready."),
    "one short": (SHORT, "warn", "Ready, with warnings", "Serving with 1 of 2 workers: generation 3."),
    "one done": (DONE, "ok", "Ready", "Serving: generation 3, 2 of 2 workers are ready."),
    "none": (DOWN, "bad", "Not ready", "Not serving: no worker of generation 3 is ready."),
    "stopping": (STOPPING, "busy", "Not ready", "Stopping: 2 workers finish what they hold, nothing new is taken."),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_each_state_has_its_sentence(name: str) -> None:
    """By word, by shape and by colour; the pill says what /readyz answers."""
    state, level, pill, sentence = SENTENCES[name]
    head = headline(known(state))

    assert (head.level, head.pill, head.sentence) == (level, pill, sentence)
    assert page(known(state)).words["state"] == sentence


def test_a_supervisor_that_is_silent_goes_before_all_else() -> None:
    """What it said before is old."""
    head = headline(known(SERVING, silent_for=14.0))

    assert (head.level, head.pill) == ("bad", "Not answering")
    assert head.sentence.startswith("prod-run does not answer: its supervisor is silent for 14 s.")


def test_what_else_matters_stands_beside_the_sentence() -> None:
    """A reload under way or failed, crashes, lost lines, what cannot respawn."""
    lost = SERVING.generations[0]._replace(cannot_respawn="app.py differs")
    cases = {
        "A reload is under way: generation 4 imports the app.": RELOADING,
        "The last reload was rejected: generation 3 goes on serving.": STALE,
        "1 crash in the last 10 min; the last was worker 1's, with SIGSEGV.": SHORT,
        "3 log lines could not be written and are gone.": SERVING._replace(lines=Lines(9, 6, 2, 1)),
        "A worker that ends cannot be replaced before the next reload.": SERVING._replace(generations=(lost,)),
    }
    for text, state in cases.items():
        assert [note.text for note in headline(known(state)).notes] == [text]


def test_a_death_of_long_ago_is_no_news() -> None:
    """It is in the table."""
    assert headline(known(SERVING._replace(deaths=(Death(1, 3, "exit 3", NOW - 700),)))).notes == ()


# ── what stands in the tables ──


def test_workers_and_the_slots_without_one() -> None:
    """State in words, use with its unit, how often each slot lost its worker."""
    rows = page(known(SHORT), is_private=True).rows["workers"]

    assert rows[0] == ["Worker", "State", "Generation", "PID", "Age", "Memory", "CPU", "Stacks", "Crashes"]
    assert rows[1] == ["0", "● serving", "3", "42", "1 min", "41.0 MiB", "25 %", "stacks", ""]
    assert rows[2] == ["1", "▲ not running", *[""] * 6, "3; last: SIGSEGV, just now"]
    assert page(known(DONE)).rows["workers"][2][:2] == ["1", "○ finished"]


def test_reloads_crashes_generations_and_sockets() -> None:
    """The newest first; times have the exact one beside them."""
    told = page(known(STALE._replace(deaths=(Death(1, 3, "exit 3", NOW - 7200),))), is_private=True)

    assert told.rows["reloads"][1] == ["50 s ago", "4", "■ rejected", "1.00 s", "SIGHUP", "KeyError: 'hunter2'"]
    assert told.rows["reloads"][2][:3] == ["1 min ago", "3", "● committed"]
    assert told.rows["crashes"][1] == ["2 h ago", "1", "3", "exit 3"]
    assert told.rows["generations"][1][:3] == ["3", "● serving", "2"]
    assert told.rows["sockets"][1] == ["web", "7", "127.0.0.1:80"]
    assert {"datetime": "2027-01-15T07:59:10.000Z", "title": "2027-01-15 07:59:10 UTC"} in told.all("time")


def test_a_failed_reload_has_its_traceback() -> None:
    """Folded up under its reason, which does not come twice; a reason that was cut is there in full."""
    long = "x" * 400
    failed = [Reload(4, "rejected", why, "SIGHUP", NOW - 50, 1.0, "Traceback\n  <here>") for why in ("KeyError", long)]
    told = page(known(SERVING._replace(reloads=tuple(failed))), is_private=True)

    assert told.rows["reloads"][2][-1] == "KeyErrorTraceback\n  <here>"
    assert told.rows["reloads"][1][-1] == f"{'x' * 299}…{long}\n\nTraceback\n  <here>"
    assert "Traceback" not in page(known(SERVING._replace(reloads=tuple(failed)))).raw


def test_nothing_looks_well_when_nobody_is_ready() -> None:
    """A generation that is committed does not serve by that alone; while it drains it is no news."""
    assert page(known(DOWN)).rows["generations"][1][:3] == ["3", "■ no worker is ready", "0"]
    assert page(known(STOPPING._replace(workers=()))).rows["generations"][1][1] == "● serving"


def test_a_storm_of_crashes_is_not_made_smaller() -> None:
    """Only so many are remembered."""
    storm = SERVING._replace(deaths=tuple(Death(0, 3, "exit 1", NOW - n) for n in range(50, 0, -1)))

    assert headline(known(storm)).notes[0].text.startswith("At least 50 crashes in the last 10 min; ")


def test_checks_have_their_age_and_a_failed_one_stands_at_the_top() -> None:
    """One that is required makes it not ready; the page says what /readyz says."""
    database = AppCheck("database", True, False, "timed out", "10.0.0.7", 2.0, MONOTONIC - 8, 0)
    cache = AppCheck("cache", False, True, "", "", 0.0021, MONOTONIC - 3, 0)
    told = page(known(SERVING._replace(checks=(database, cache, AppCheck("new", False, None)))), is_private=True)

    assert told.rows["checks"][-3] == [
        "database", "■ failed", "8 s ago", "2.00 s", "0", "the app, required", "timed out: 10.0.0.7",
    ]  # fmt: skip
    assert told.rows["checks"][-2] == ["cache", "● ok", "just now", "2.1 ms", "0", "the app", ""]
    assert told.rows["checks"][-1][:2] == ["new", "○ no result yet"]
    assert told.words["state"] == "Not ready: the app's required check database fails."
    assert [note.text for note in headline(known(SERVING._replace(checks=(database,)))).notes] == [
        "The app's check database failed: timed out."
    ]


def test_many_rows_are_bounded_and_those_in_trouble_come_first() -> None:
    """A thousand workers do not hold up the loop, nor hide the one that matters."""
    crowd = tuple(Worker(n, 3, n + 10, "stuck" if n == 900 else "serving", 4000.0) for n in range(1000))
    told = page(known(SERVING._replace(workers=crowd, wanted=1000)))

    assert len(told.rows["workers"]) == 1 + MOST
    assert told.rows["workers"][1][:2] == ["900", "■ survived SIGKILL"]
    assert "800 more are not shown." in told.raw


# ── nothing from outside becomes part of it ──

ATTACKS = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</pre></details><form>",
    "{{nonce}}",
    "\udcff\x00\u202e",
]


@pytest.mark.parametrize("words", ATTACKS)
@pytest.mark.parametrize("options", [(), ("live",), ("find=%3Cscript%3E%22%27",), ("slot=%22%3E<script>",)])
def test_words_stay_words(words: str, options: tuple[str, ...]) -> None:
    """Whatever an app is called, says, raises or logs: the same elements with the same attributes as with a plain word."""
    attacked = page(hostile(words), *options, is_private=True)
    plain = page(hostile("word"), *options, is_private=True)
    skeleton = [
        [(tag, sorted(attributes)) for tag, attributes in one.elements if tag != "option"] for one in (attacked, plain)
    ]

    assert skeleton[0] == skeleton[1]
    assert all(tag != "script" or attributes.keys() == {"nonce"} for tag, attributes in attacked.elements)
    assert "\u202e" not in attacked.raw
    assert "\x00" not in attacked.raw


def test_the_public_page_has_nothing_private() -> None:
    """No reason, no word of the app's, no value, no line of the log, wherever they come from."""
    one = hostile("x")
    state = one.state._replace(
        generations=(
            one.state.generations[0]._replace(
                origin="--watch: hunter2", stale_because="hunter2", cannot_respawn="hunter2"
            ),
        ),
        workers=(Worker(0, 1, 42, "serving", 0.0, "hunter2"),),
        reloads=(Reload(1, "rejected", "hunter2", "--watch: hunter2", NOW, 1.0, "hunter2"),),
        checks=(AppCheck("db", True, False, "failed", "hunter2", 0.1, 1.0, 0),),
    )
    facts = (("hunter2", "hunter2", "hunter2"),)
    about = one.about._replace(settings=facts, directory="hunter2", token_file="hunter2")  # noqa: S106
    log = known(log=b"hunter2\n").log
    told = one._replace(state=state, about=about, config=facts, log=log)

    assert "hunter2" not in page(told, "find=hunter").raw
    assert page(told, is_private=True).raw.count("hunter2") > 8


# ── one file that needs nothing else ──


def test_it_is_small_and_loads_nothing() -> None:
    """Under 40 KB with a busy state and no log; no address of another host, no inline handler or style attribute."""
    busy = STALE._replace(deaths=tuple(Death(1, 3, "exit 3", NOW - n) for n in range(50, 0, -1)))
    told = page(known(busy), is_private=True)
    names = {name for _, attributes in told.elements for name in attributes}

    assert len(TEMPLATE.encode()) < 20_000
    assert len(told.raw.encode()) < 40_000
    assert not re.search(r"https?://|url\(|@import|[\"'(=]//", told.raw)
    assert {a["href"][:1] for a in told.all("a")} == {"/"}
    assert not any(name.startswith("on") or name in ("style", "src") for name in names)


def test_the_policy_allows_its_own_script_and_style_and_no_other() -> None:
    """By a nonce that is new each time."""
    first, second = reply(known()), reply(known())
    policy = dict(first.headers)["Content-Security-Policy"]
    (nonce,) = {one["nonce"] for tag, one in Page(first.body.decode()).elements if tag in ("script", "style")}

    assert f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'; base-uri 'none'" in policy
    assert "unsafe" not in policy
    assert nonce not in second.body.decode()


def test_the_live_part_is_the_page_without_its_frame() -> None:
    """The script brings the one up to the other, so they must be the same."""
    whole_page, part = reply(known(STALE)).body.decode(), reply(known(STALE), "live").body.decode()

    assert part.startswith('<div id="live"')
    assert part in whole_page


def test_rendering_loads_nothing_heavy() -> None:
    """The observer's interpreter starts without `site`; what a page costs stays small."""
    code = (
        "import json, sys; sys.path.append(sys.argv[1]); from launcher.observer import endpoints, http, state;"
        "known = endpoints.Known(endpoints.About('x'), state.State(is_committed=True, current=1,"
        " generations=(state.Generation(1, 'committed', 'start', 0.0),)), 1.0, 1.0, 0.0, None);"
        "request = http.Request('GET', '/', ('find=%20',), '', '', '', True);"
        "assert endpoints.find('/')[0].answer(known, request, {}, True).status == 200; print(json.dumps(list(sys.modules)))"
    )
    argv = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        code.replace("import json, sys", "import sys").replace(
            "print(json.dumps(list(sys.modules)))", "print(*sys.modules)"
        ),
        str(ROOT),
    ]
    loaded = set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split())

    assert "launcher.observer.page.whole" in loaded
    assert loaded & {"typing", "re", "json", "html", "urllib", "urllib.parse", "enum", "inspect", "string"} == set()


# ── looks ──


def test_text_is_readable_in_the_light_and_in_the_dark() -> None:
    """At least 4.5 to 1 (WCAG 2 AA) for every colour of text on every ground."""
    schemes = re.findall(r":root \{\n(?:  color-scheme[^\n]*\n)?((?:\s+--.*\n)+)", TEMPLATE)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", scheme))
        for ground in ("back", "card"):
            for text in ("text", "soft", "link", "ok", "busy", "warn", "bad", "quiet"):
                assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground, colours)


def test_it_can_be_walked_without_eyes_or_mouse() -> None:
    """Landmarks, headings, header cells, names for what is drawn; the state is announced, and nothing else of it."""
    told = page(known(STALE), is_private=True)
    tags = [tag for tag, _ in told.elements]

    assert [tags.count(tag) for tag in ("header", "main", "footer", "nav", "h1")] == [1, 1, 1, 1, 1]
    assert all(each["aria-labelledby"] in told.words for each in told.all("section"))
    assert {each["scope"] for each in told.all("th")} == {"row", "col"}
    assert all(each["role"] == "img" and each["aria-label"] for each in told.all("svg"))
    assert all(each.get("aria-label") for each in [*told.all("input"), *told.all("select")])
    assert [each.get("id") for tag, each in told.elements if each.get("role") == "status"] == ["link", "state"]
    assert "ago" not in told.words["state"], "what changes by itself would be read out each time"


def test_without_scripts_it_loads_itself_anew() -> None:
    """And says so."""
    told = page(known())

    assert {"http-equiv": "refresh", "content": "10"} in told.all("meta")
    assert told.raw.index("<noscript><meta") < told.raw.index("<body>")


# ── the log ──

LOG = b"one error\ntwo\nthree Error <b>\n"


def test_the_log_can_be_searched() -> None:
    """In small and large letters; the form keeps what was asked."""
    told = page(known(log=LOG), "find=eRRor", "slot=1", "level=", is_private=True)

    assert "one error\nthree Error &lt;b&gt;</pre>" in told.raw
    assert "two" not in told.words["log-lines"]
    assert {"value": "1", "selected": "selected"} in told.all("option")
    assert told.all("input")[0]["value"] == "eRRor"
    assert "No line matches." in page(known(log=LOG), "find=nothing", is_private=True).raw
    assert "slot is a number" in page(known(log=LOG), "slot=x", is_private=True).raw


@given(st.text(st.sampled_from("%+aé4zEF0"), max_size=12))
def test_a_word_of_a_query_is_read_as_everybody_reads_it(text: str) -> None:
    """Percent signs that mean nothing included."""
    assert unquote(text) == unquote_plus(text)


def test_what_version_json_says_stands_at_the_top() -> None:
    """Whatever is in that file."""
    for data, words in (
        ({"version": "1.2", "commit": "abc", "source": 3}, "version 1.2, abc"),
        ({"version": ["<b>"]}, "version ['<b>']"),
        ([1], "version not named in version.json"),
    ):
        assert words in page(known()._replace(version=json.dumps(data).encode())).words["live"]
    assert "version.json cannot be read" in page(known()._replace(version=b"\xff{")).words["live"]


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
