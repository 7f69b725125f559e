"""The page at `/` in a real browser, above a real prod-run."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.processes.asking import ANYWHERE, private, wait_until_served
from tests.processes.browser import CHROMIUM, Browser, tunnel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.processes.running import Running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
SECTIONS = ("Workers", "Start and reloads", "Crashes", "Generations", "Checks", "Sockets")
APP = """
import os
from launcher import Worker
if os.path.exists("bad"):
    raise ValueError("<script>hunter2</script>")

def main(worker: Worker):
    print("slot", worker.slot, "says <b>hello</b>")
    worker.ready()
    worker.status("busy " * 10 + "<i>with</i>" + "x" * 150)
    worker.stopping.wait()
"""
# What a hidden tab sees; the page's own questions are counted instead of asked.
HIDE = """
(() => {
  window.asked = 0;
  window.away = true;
  Object.defineProperty(document, "hidden", { get: () => window.away });
  const real = window.fetch;
  window.fetch = (...words) => { window.asked += 1; return real(...words); };
  document.dispatchEvent(new Event("visibilitychange"));
  return window.asked;
})()
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """It takes seconds to start."""
    one = Browser(tmp_path_factory.mktemp("chromium"))
    yield one
    one.close()


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """A page of one's own."""
    chromium.begin()
    return chromium


@pytest.fixture
def running(start: Callable[..., Running], app: Callable[..., Path]) -> Running:
    """Two workers with a socket, and a port for everybody."""
    app(APP)
    one = start("-w", 2, "-b", "web=127.0.0.1:0", *ANYWHERE, "app:main")
    wait_until_served(one)
    return one


def address(running: Running) -> str:
    """Return where its page is."""
    host, port = running.address("introspect")
    return f"http://{host}:{port}/"


def test_it_goes_with_the_times_without_being_loaded_again(running: Running, browser: Browser, tmp_path: Path) -> None:
    """A reload, a rejected one and a crash come in place; nothing is refused by the policy and nothing fails."""
    browser.open(address(running))
    loads = browser.loads
    browser.wait_for("state.innerText.includes('generation 1, 2 of 2')", "the first generation")
    browser.run("state.mine = live.mine = document.querySelector('#workers-table tbody tr').mine = true")
    running.reload()
    browser.wait_for("state.innerText.includes('generation 2, 2 of 2')", "the second generation")
    (tmp_path / "bad").touch()
    assert running.reload()["event"] == "rejected"
    browser.wait_for("live.innerText.includes('The last reload was rejected')", "the rejection")
    assert "Ready, with warnings" in browser.text(".pill")
    assert browser.run("document.title") == "▲ app: ready, with warnings"
    os.kill(next(pid for pid, slot in running.workers().items() if slot == 1), signal.SIGSEGV)
    browser.wait_for("document.querySelector('#crashes-table')?.innerText.includes('SIGSEGV')", "the crash")
    browser.wait_for("document.querySelectorAll('#workers-table polyline').length >= 4", "lines of memory and CPU")

    assert browser.run("state.mine && live.mine && document.querySelector('#workers-table tbody tr').mine")
    assert browser.loads == loads
    assert browser.complaints == []


def test_what_is_not_its_own_is_refused_and_seen(running: Running, browser: Browser) -> None:
    """A script that got in would not run; and the test above would see it."""
    browser.open(address(running))
    browser.run(
        "void document.body.append(Object.assign(document.createElement('script'), {textContent: 'hacked = 1'}))"
    )

    assert browser.run("typeof hacked") == "undefined"
    assert any("Content Security Policy" in each for each in browser.complaints)


def test_it_rests_while_nobody_sees_it(running: Running, browser: Browser) -> None:
    """And asks at once when it is looked at again."""
    browser.open(address(running))
    assert browser.run(HIDE) == 0
    browser.run("away = false, void document.dispatchEvent(new Event('visibilitychange'))")

    browser.wait_for("asked > 0", "a question")


def test_it_says_when_nobody_answers(running: Running, browser: Browser) -> None:
    """What stands there is then of before, and looks like it."""
    browser.open(address(running))
    browser.wait_for("link.innerText.includes('Live')", "that it is live")
    assert running.stop() == 0
    browser.wait_for("link.innerText.includes('No answer since')", "that it is not")

    assert browser.run("document.documentElement.className") == "stale"
    assert "2 of 2 workers are ready" in browser.text("#state")


def test_without_scripts_everything_is_there_and_comes_anew(running: Running, browser: Browser) -> None:
    """The same page, loaded again by itself."""
    browser.turn_off_scripts()
    browser.open(address(running))
    assert "2 of 2 workers are ready" in browser.text("#state")
    assert [title for title in SECTIONS if title not in browser.text("main")] == []
    assert "loads itself anew" in browser.text("footer")
    loads = browser.loads
    running.reload()
    browser.wait_for("document.querySelector('#state')?.innerText.includes('generation 2')", "the second generation")

    browser.wait_for_load(loads)
    assert browser.complaints == []


def test_the_private_view_has_the_log_and_its_filter(running: Running, browser: Browser, tmp_path: Path) -> None:
    """Through a tunnel to the unix socket, as `ssh -L` makes one; what is open stays open while it changes."""
    with tunnel(private(tmp_path)) as port:
        browser.open(f"http://localhost:{port}/")
        browser.wait_for("live.innerText.includes('slot 1 says <b>hello</b>')", "a line of the log")
        browser.run("void document.querySelector('#settings > summary').click()")
        browser.run("find = document.querySelector('input[name=find]'), find.focus(), void (find.value = 'SLOT 0 <b>')")
        browser.run("find.value = 'slot 0', find.dispatchEvent(new Event('input', {bubbles: true}))")
        browser.wait_for(
            "document.querySelector('#log-lines').innerText.split('\\n').every((line) => line.includes('slot 0'))",
            "only these lines",
        )

        assert "find=slot+0" in browser.run("location.search")
        assert browser.run("document.activeElement === find && settings.open")
        assert "PROD_RUN_WORKERS" in browser.text("#settings") or "workers" in browser.text("#settings")
        assert browser.complaints == []


@pytest.mark.parametrize("is_dark", [False, True])
def test_it_fits_a_phone(running: Running, browser: Browser, tmp_path: Path, is_dark: bool) -> None:  # noqa: FBT001
    """360 points wide, with the longest words an app can say: nothing to scroll sideways, and tables are still tables."""
    with tunnel(private(tmp_path)) as port:
        browser.look(width=360, height=740, is_dark=is_dark, touch=True)
        browser.open(f"http://localhost:{port}/")
        browser.wait_for("live.innerText.includes('<i>with</i>')", "a long status")

        assert browser.run("document.documentElement.scrollWidth") == 360
        assert (
            browser.run("[...document.querySelectorAll('section')].filter((s) => s.scrollWidth > s.clientWidth).length")
            == 0
        )
        roles = [node["role"]["value"] for node in browser.call("Accessibility.getFullAXTree")["nodes"]]
        assert roles.count("columnheader") > 20
        assert roles.count("rowheader") > 10
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(18, 22, 27)" if is_dark else "rgb(246, 247, 249)")
