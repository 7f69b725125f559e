"""What each probe says in each state, and who may see why."""

from __future__ import annotations

import pytest

from launcher import protocol
from launcher.observer import access, endpoints, introspection, probes
from launcher.observer.access import is_number
from launcher.observer.endpoints import About, Known, Later
from launcher.observer.http import Reply, Request
from launcher.observer.state import Generation, Reload, State, Worker

STARTING = State(generations=(Generation(1, "preparing", "start", 0.0),))
SERVING = State(
    sentence="generation 3 serving 1/1",
    is_ready=True,
    is_committed=True,
    current=3,
    generations=(Generation(3, "committed", "start", 0.0),),
    workers=(Worker(0, 3, 42, "serving", 1.0), Worker(1, 2, 43, "draining", 1.0)),
)
STALE = SERVING._replace(
    generations=(
        Generation(3, "committed", "--watch: /run/hunter2", 0.0, stale_since=5.0, stale_because="KeyError: 'hunter2'"),
    ),
    reloads=(Reload(3, "committed", "", "--watch: /run/hunter2", 1.0, 1.0),),
)
CRASHING = SERVING._replace(is_ready=False, workers=())
DRAINING = SERVING._replace(is_ready=False, is_draining=True)
LOST = SERVING._replace(generations=(Generation(3, "committed", "start", 0.0, cannot_respawn="/srv/app differs"),))
STATES = {
    "starting": (STARTING, 200, 503, 503),
    "serving": (SERVING, 200, 200, 200),
    "stale": (STALE, 200, 200, 200),
    "cannot respawn": (LOST, 200, 200, 200),
    "crash loop": (CRASHING, 200, 503, 200),
    "draining": (DRAINING, 200, 503, 200),
}


def known(state: State, silent_for: float = 0.0) -> Known:
    """Know nothing but a state."""
    return Known(About("app"), state, 10.0, 1e9, silent_for, None)


def ask(path: str, state: State, *, is_private: bool = False, silent_for: float = 0.0, options: str = "") -> Reply:
    """Have a path answered."""
    found = endpoints.find(path)
    assert found is not None
    request = Request("GET", path, (options,), "x", "", "", True)
    answer = found[0].answer(known(state, silent_for), request, found[1], is_private)
    assert isinstance(answer, Reply)
    return answer


@pytest.mark.parametrize("name", STATES)
def test_each_state_has_its_codes(name: str) -> None:
    """Draining is live and not ready; a crash loop never looks dead; a failed reload changes no code."""
    state, *codes = STATES[name]

    assert [ask(path, state).status for path in ("/livez", "/readyz", "/startupz")] == codes
    assert ask("/healthz", state).status == codes[0]
    assert ask("/__heartbeat__", state).status == codes[1]
    assert ask("/__lbheartbeat__", state).status == 200


def test_a_supervisor_that_does_not_answer_is_not_alive_after_ten_seconds() -> None:
    """Its loop stands still; what it said before is not to be relied upon."""
    assert ask("/livez", SERVING, silent_for=9.9).status == 200
    assert ask("/livez", SERVING, silent_for=10.0).status == 503
    assert ask("/livez", SERVING, silent_for=12.0).body == (
        b"[-]supervisor failed: no answer for 12s\nlivez check failed\n"
    )


def test_a_good_probe_is_short_unless_asked() -> None:
    """Kubernetes' form."""
    assert ask("/readyz", SERVING).body == b"ok\n"
    assert ask("/readyz", SERVING, options="verbose").body == (
        b"[+]generation ok\n[+]workers ok\n[+]shutdown ok\n[+]reload ok\n[+]respawn ok\nreadyz check passed\n"
    )
    for asked in ("verbose=1", "verbose=", "verbose=false"):  # whether the name is there, as in Kubernetes
        assert ask("/readyz", SERVING, options=asked).body == ask("/readyz", SERVING, options="verbose").body
    assert ask("/readyz", SERVING, options="verbosely").body == b"ok\n"
    assert ask("/healthz", SERVING, options="verbose").body == b"[+]supervisor ok\nhealthz check passed\n"


def test_a_bad_probe_says_why() -> None:
    """Without being asked."""
    assert ask("/readyz", STARTING).body == (
        b"[-]generation failed: none is committed yet\n[-]workers failed: no worker is ready\n"
        b"[+]shutdown ok\nreadyz check failed\n"
    )
    assert b"[+]workers ok\n[-]shutdown failed: draining\n" in ask("/readyz", DRAINING).body


def test_a_reason_that_is_no_utf_8_is_shown_all_the_same() -> None:
    """A probe that fails because of what it has to say would be one more outage."""
    odd = STALE._replace(generations=(STALE.generations[0]._replace(stale_because="caf\udce9"),))

    assert ask("/readyz", odd, options="verbose", is_private=True).status == 200
    assert b"caf\\udce9" in ask("/readyz", odd, options="verbose", is_private=True).body


def test_a_warning_is_seen_and_its_reason_is_for_the_private_tier() -> None:
    """What the app's error says may hold anything."""
    public = ask("/readyz", STALE, options="verbose").body
    private = ask("/readyz", STALE, options="verbose", is_private=True).body

    assert b"[!]reload failed: the last one failed: kept generation 3: reason withheld\n" in public
    assert b"hunter2" not in public + ask("/__heartbeat__", STALE).body + ask("/status", STALE).body
    assert b"hunter2" in private
    assert ask("/status", STALE).body.count(b'"origin": "--watch"') == 2
    assert ask("/status", STALE, is_private=True).body.count(b'"origin": "--watch: /run/hunter2"') == 2
    assert b'"status": "warning"' in ask("/__heartbeat__", STALE).body


def test_one_check_can_be_asked_for() -> None:
    """Each by its name; an unknown one is not a good one."""
    assert (ask("/readyz/workers", SERVING).status, ask("/readyz/workers", CRASHING).status) == (200, 503)
    assert ask("/readyz/reload", STALE).status == 200
    assert ask("/livez/supervisor", SERVING, silent_for=11.0).status == 503
    unknown = ask("/readyz/database", SERVING)
    assert (unknown.status, b"generation, workers" in unknown.body) == (404, True)


@pytest.mark.parametrize(
    "path", ["", "/livez/", "//livez", "/livez/a/b", "/workers//stacks", "/Livez", "/status/", "/livez%20"]
)
def test_what_is_not_in_the_table_is_not_found(path: str) -> None:
    """Nothing is guessed."""
    assert endpoints.find(path) is None


def test_every_answer_about_stacks_is_in_the_reference() -> None:
    """Those of a worker that runs, and of one that is stopped and cannot tell."""
    found = endpoints.find("/workers/0/stacks")
    assert found is not None
    answers = [
        introspection._stacks(protocol.decode(protocol.encode("stacks", slot=0, generation=1, pid=7, **told)))
        for told in ({"text": "File", "process": ""}, {"text": "", "process": "stopped by a signal"})
    ]

    assert [answer.status for answer in answers] == [200, 503]
    assert {str(answer.status) for answer in answers} < set(found[0].codes.split(", "))


def test_stacks_are_asked_of_a_worker_that_can_tell() -> None:
    """Not of one on its way out, and not of a slot that nobody has."""
    answers = []
    for slot in ("0", "1", "7", "x", "-1", "\u0660", "99999999999"):
        found = endpoints.find(f"/workers/{slot}/stacks")
        assert found is not None
        assert found[0].is_private
        answers.append(found[0].answer(known(SERVING), Request("GET", "", (), "", "", "", True), found[1], True))

    assert answers[0] == Later(0)
    assert {answer.status for answer in answers[1:] if isinstance(answer, Reply)} == {404}
    assert len(answers[1:]) == sum(isinstance(answer, Reply) for answer in answers)


# ── tiers ──


def judge(
    authorization: str = "", host: str = "10.0.0.1:8900", *, token: bytes | None = b"s3cret", by_socket: bool = False
) -> tuple[bool, int]:
    """Ask for something private; return whether that is seen, and the code of a refusal."""
    request = Request("GET", "/config", (), host, authorization, "", True)
    read = None if token is None else (lambda: token)
    judgement = access.judge(request, read, by_socket=by_socket, wants_private=True)
    return judgement.is_private, judgement.refusal.status if judgement.refusal else 0


def test_the_unix_socket_is_private() -> None:
    """Whoever may connect to it may see everything, and needs no Host."""
    assert judge(by_socket=True, host="", token=None) == (True, 0)
    for host in ("localhost:8900", "127.0.0.1:8900", "[::1]:8900", "x"):
        assert judge(by_socket=True, host=host, token=None) == (True, 0)


def test_a_name_in_the_dns_does_not_lead_a_browser_through_a_tunnel() -> None:
    """`ssh -L` puts the socket before somebody's browser, and any page there could have its name lead to it."""
    for host in ("evil.example", "evil.example:8900", "1.2.3.4.evil.example"):
        assert judge(by_socket=True, host=host, token=None) == (False, 403)


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crets", "Basic s3cret", "s3cret"]
)
def test_without_the_token_nothing_private_is_seen(authorization: str) -> None:
    """401 if there could be one, 403 if not."""
    assert judge(authorization) == (False, 401)
    assert judge(authorization, token=None) == (False, 403)


def test_an_empty_token_file_admits_nobody() -> None:
    """Nor does one that cannot be read."""
    assert judge("Bearer ", token=b"") == (False, 401)
    assert judge("Bearer x", token=b"") == (False, 401)


def test_with_the_token_everything_is_seen() -> None:
    """The scheme's name has no case (RFC 9110 §11.1)."""
    assert judge("Bearer s3cret") == (True, 0)
    assert judge("bearer  s3cret") == (True, 0)


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8900", True),
        ("[::1]:8900", True),
        ("[fe80::1]", True),
        ("localhost:8900", True),
        ("LOCALHOST", True),
        ("evil.example", False),
        ("1.2.3.4.evil.example", False),
        ("1.2.3.444", False),
        (f"1.2.3.{'4' * 5000}", False),
        ("1.2.3", False),
        ("[evil]", False),
        ("[::1]evil", False),
        ("localhost.evil.example", False),
        ("127.0.0.1:x", False),
        ("", False),
    ],
)
def test_the_private_tier_is_not_served_under_a_name(host: str, is_one: bool) -> None:  # noqa: FBT001
    """DNS rebinding leads a browser to us, but its Host still says where it believes to be."""
    assert is_number(host) is is_one
    assert judge("Bearer s3cret", host) == ((True, 0) if is_one else (False, 403))


def test_in_public_the_host_does_not_matter() -> None:
    """A load balancer sends whatever it likes."""
    request = Request("GET", "/readyz", (), "evil.example", "", "", True)

    assert access.judge(request, None, by_socket=False, wants_private=False) == access.Judgement(is_private=False)


def test_the_words_of_the_probes_are_all_checked_here() -> None:
    """A check that nobody turns bad is none."""
    bad = {
        check.name for state, *_ in STATES.values() for check in probes.ready(state, 10.0).checks if not check.is_good
    }

    assert bad == {check.name for check in probes.ready(SERVING, 10.0).checks}
