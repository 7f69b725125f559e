"""The introspection port's connections: what clients do to it, and what they cannot do to others."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.observer import port as ports
from launcher.observer.http import Reply, Request
from launcher.observer.port import MOST, Port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = b"x" * 8_000_000  # more than any socket buffer takes


class World:
    """A port behind a unix socket, its clients, and what it was asked."""

    def __init__(self, path: str) -> None:
        self.asked: list[str] = []
        self.port = Port(self.answer, lambda _: Reply(504, b""))
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(2048)
        self.listener.setblocking(False)
        self.port.listen(self.listener.fileno(), by_socket=True)
        self.clients: list[socket.socket] = []

    def answer(self, request: Request, by_socket: bool) -> object:  # noqa: FBT001
        """Answer by the path: /large, /later, else the path itself."""
        assert by_socket
        self.asked.append(request.path)
        if request.path == "/later":
            return "somebody"
        return Reply(200, LARGE if request.path == "/large" else request.path.encode())

    def connect(self, *pieces: bytes) -> socket.socket:
        """Connect and send."""
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.connect(self.listener.getsockname())
        client.settimeout(20)
        for piece in pieces:
            client.sendall(piece)
        return client

    def exchange(self, *pieces: bytes) -> bytes:
        """Send these pieces, each in a turn of its own, and the end; return all answers."""
        client = self.connect()
        for piece in pieces:
            with contextlib.suppress(ConnectionError):  # it was refused already
                client.sendall(piece)
            self.turn(2)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_WR)
        self.turn(3)
        answers = b""
        with contextlib.suppress(ConnectionError):
            while piece := client.recv(65536):
                answers += piece
                self.turn()
        client.close()
        self.clients.remove(client)
        return answers

    def turn(self, times: int = 1) -> None:
        """Let the port do what there is to do."""
        for _ in range(times):
            self.port.serve()

    def is_closed(self, client: socket.socket) -> bool:
        """Say whether the other end is closed."""
        client.setblocking(False)
        try:
            return client.recv(65536) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A port of one's own."""
    one = World(str(tmp_path / "s"))
    yield one
    for client in one.clients:
        client.close()
    for connection in list(one.port._connections.values()):
        one.port._drop(connection)
    for theirs, _ in one.port._listeners.values():
        theirs.detach()
    one.listener.close()


def test_a_connection_serves_many_requests(world: World) -> None:
    """Each is answered in its turn; what is left of a read is not lost."""
    client = world.connect(GET % 1 + (GET % 2)[:10])
    world.turn()
    assert client.recv(65536).endswith(b"/1")
    client.sendall((GET % 2)[10:])
    world.turn()

    assert client.recv(65536).endswith(b"/2")


def test_hundreds_of_requests_in_one_piece_are_all_answered(world: World) -> None:
    """A few in each turn, so that others have theirs, and none by recursion."""
    client = world.connect(b"".join(GET % number for number in range(500)))
    world.turn()
    first = len(world.asked)
    other = world.connect(GET % 9999)
    world.turn(2)
    assert first < 500
    assert world.asked.index("/9999") < 100
    assert other.recv(65536).endswith(b"/9999")
    answer = b""
    while not answer.endswith(b"/499"):
        answer += client.recv(65536)
        world.turn()

    assert [path for path in world.asked if path != "/9999"] == [f"/{number}" for number in range(500)]
    assert answer.count(b"HTTP/1.1 200") == 500


def test_who_does_not_read_is_not_read_from(world: World) -> None:
    """One response is kept for it, and no second one is made before it took that."""
    client = world.connect(GET.replace(b"%d", b"large"), *[GET.replace(b"%d", b"large")] * 20)
    world.turn(50)
    assert world.asked == ["/large"]
    taken = 0
    while taken < len(LARGE):
        taken += len(client.recv(1 << 20))
        world.turn()
    world.turn(5)

    assert world.asked == ["/large"] * 2


def test_who_does_not_read_for_long_is_cut_off(world: World) -> None:
    """What is kept for it goes too."""
    client = world.connect(GET.replace(b"%d", b"large"))
    world.turn(3)
    world.port.expire(time.monotonic() + ports.WRITE + 1)
    while piece := client.recv(1 << 20):
        assert piece

    assert world.port.deadline() is None


def test_a_header_without_end_is_refused_and_the_refusal_arrives(world: World) -> None:
    """1 MiB: the client is still sending when we answer; a reset would take the answer with it."""
    client = world.connect()
    client.setblocking(False)
    data, sent = b"GET / HTTP/1.1\r\nX: " + b"y" * (1 << 20), 0
    while sent < len(data):
        try:
            sent += client.send(data[sent:])
        except BlockingIOError:
            world.turn()
    client.shutdown(socket.SHUT_WR)
    world.turn(200)
    client.setblocking(True)
    answer = client.recv(65536)

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"Connection: close" in answer
    assert world.asked == []
    assert world.is_closed(client)


def test_a_body_is_never_taken_for_a_request(world: World) -> None:
    """The connection ends behind the answer."""
    client = world.connect(b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n" + GET % 2)
    world.turn(5)

    assert world.asked == ["/1"]
    assert b"Connection: close" in client.recv(65536)


def test_half_a_request_is_given_up(world: World) -> None:
    """Five seconds from its first byte, however busily it goes on dripping."""
    client = world.connect(b"GET / HT")
    world.turn()
    first = world.port.deadline()
    client.sendall(b"TP/1.")
    world.turn()
    assert world.port.deadline() == first
    assert first is not None
    world.port.expire(first)
    world.turn()

    assert client.recv(65536).startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed(world: World) -> None:
    """Before and between requests."""
    client = world.connect(GET % 1)
    world.turn()
    assert client.recv(65536)
    deadline = world.port.deadline()
    assert deadline is not None
    world.port.expire(deadline)

    assert world.is_closed(client)


def test_idle_connections_make_room_and_busy_ones_stay(world: World) -> None:
    """A thousand idle ones: whoever asks is answered, and who waits for an answer goes on waiting."""
    waiting = world.connect(GET.replace(b"%d", b"later"))
    world.turn()
    idle = [world.connect() for _ in range(1000)]
    asking = world.connect(GET % 7)
    world.turn(40)
    world.port.deliver("somebody", Reply(200, b"at last"))

    assert asking.recv(65536).endswith(b"/7")
    assert waiting.recv(65536).endswith(b"at last")
    assert sum(not world.is_closed(client) for client in idle) < MOST


def test_who_waits_in_vain_is_told(world: World) -> None:
    """504, and the connection goes on."""
    client = world.connect(GET.replace(b"%d", b"later"))
    world.turn()
    deadline = world.port.deadline()
    assert deadline is not None
    world.port.expire(deadline)
    assert client.recv(65536).startswith(b"HTTP/1.1 504 ")
    client.sendall(GET % 1)
    world.turn()

    assert client.recv(65536).endswith(b"/1")


def test_who_hangs_up_while_waiting_is_forgotten(world: World) -> None:
    """Its answer has nowhere to go, and that harms nobody."""
    world.connect(GET.replace(b"%d", b"later"))
    world.turn()
    world.clients.pop().close()
    world.turn()

    assert world.port.deadline() is None
    world.port.deliver("somebody", Reply(200, b"at last"))


def test_a_client_that_closed_its_sending_half_gets_its_answer(world: World) -> None:
    """As `printf … | nc` does."""
    client = world.connect(GET % 1)
    client.shutdown(socket.SHUT_WR)
    world.turn(3)

    assert client.recv(65536).endswith(b"/1")


def test_without_descriptors_it_does_not_spin(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """accept(2) fails with EMFILE for as long as that is so, and the listener stays readable."""

    class Full:
        def __init__(self, sock: socket.socket) -> None:
            self.fileno = sock.fileno

        def _accept(self) -> None:
            raise OSError(errno.EMFILE, "too many")

    fd = world.listener.fileno()
    real = world.port._listeners[fd]
    world.port._listeners[fd] = (Full(real[0]), True)  # type: ignore[assignment]
    client = world.connect(GET % 1)
    world.turn()
    assert world.port._poll.poll(0) == []
    world.port._listeners[fd] = real
    deadline = world.port.deadline()
    assert deadline is not None
    world.port.expire(deadline)
    world.turn()

    assert client.recv(65536).endswith(b"/1")


CLIENTS: dict[str, Callable[[World], object]] = {
    "nothing": lambda world: world.connect().close(),
    "half": lambda world: world.connect(b"GET / HT").close(),
    "gone": lambda world: world.connect(GET % 1).close(),
    "gone with much to get": lambda world: world.connect(GET.replace(b"%d", b"large")).close(),
    "noise": lambda world: world.connect(bytes(range(256)) * 100).close(),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_who_goes_away_leaves_nothing_behind(world: World, name: str) -> None:
    """No descriptor, no deadline."""
    CLIENTS[name](world)
    world.turn(20)

    assert world.port.deadline() is None
    assert world.port._connections == {}


# ── whatever comes, and however ──

WORDS = [GET % 1, GET % 2, b"HEAD /3 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n", b"\r\n", b"\0", b"GET "]
WORDS += [b"POST /4 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /", b"x" * 5000, b"Host: y\r\n"]


@settings(
    max_examples=150, suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture]
)
@given(
    words=st.lists(st.sampled_from(WORDS) | st.binary(max_size=9), min_size=1, max_size=8),
    cuts=st.sets(st.integers(1, 200), max_size=6),
)
def test_how_a_stream_is_cut_changes_no_answer(world: World, words: list[bytes], cuts: set[int]) -> None:
    """Requests and garbage in one piece or in many: the same answers, and the next client is answered too."""
    data = b"".join(words)
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[begin:end] for begin, end in itertools.pairwise(places)]

    assert world.exchange(*pieces) == world.exchange(data)
    assert world.exchange(b"GET /alive HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n/alive")
    assert not world.port._connections


def test_nobody_keeps_the_loop_for_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is asked, a turn ends in time, and the next ones go on where it ended; all get all answers."""
    now = itertools.count(1000.0, ports.TURN / 10)
    monkeypatch.setattr(ports.time, "monotonic", lambda: next(now))
    clients = [world.connect(GET % number * 10) for number in range(8)]
    world.port.serve()
    in_one_turn = len(world.asked)
    world.turn(200)

    assert in_one_turn < 10
    assert sorted(world.asked) == sorted(f"/{number}" for number in range(8) for _ in range(10))
    assert all(client.recv(65536).count(b"200 OK") == 10 for client in clients)


def test_who_asks_on_behind_an_awaited_answer_is_answered(world: World) -> None:
    """The second request was there all the time: nothing else would tell of it."""
    client = world.connect(GET.replace(b"%d", b"later") + GET % 2)
    world.turn(3)
    world.port.deliver("somebody", Reply(200, b"at last"))
    world.turn(3)
    answers = client.recv(65536)

    assert answers.index(b"at last") < answers.index(b"/2")
