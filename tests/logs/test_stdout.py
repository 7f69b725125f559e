"""An inherited standard output can be slow, full or gone: the supervisor goes on, and every lost line is counted."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import re
import resource
import select
import signal
import socket
import termios
import tty
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.logs import nonblocking
from launcher.logs.stdout import Stdout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ("pipe", "socket", "terminal")
NOTICE = b"dropped lines=%d\n"


class Waited(BaseException):
    """A call that must not wait did."""


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Interrupt whatever waits: without this a broken promise would be a hanging test."""
    with no_waiting():
        yield


@contextmanager
def no_waiting(seconds: float = 30) -> Iterator[None]:
    """Raise in the middle of a system call that waits."""

    def interrupt(*_: object) -> None:
        raise Waited

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Pair:
    """Both ends of something that lines go through; the writing end is blocking, as an inherited one is."""

    def __init__(self, kind: str) -> None:
        match kind:
            case "pipe":
                self.reading, self.writing = os.pipe()
            case "socket":
                self.reading, self.writing = (end.detach() for end in socket.socketpair())
            case "datagrams":
                self.reading, self.writing = (end.detach() for end in socket.socketpair(type=socket.SOCK_SEQPACKET))
            case _:
                self.reading, self.writing = pty.openpty()
                tty.setraw(self.writing)
        os.set_blocking(self.reading, False)

    def read(self, size: int = 1 << 20) -> bytes:
        """Return what is there, at most so much."""
        out = b""
        while len(out) < size:
            try:
                piece = os.read(self.reading, size - len(out))
            except BlockingIOError:
                break
            if not piece:
                break
            out += piece
        return out

    def close(self) -> None:
        """Close what is still open."""
        for fd in (self.reading, self.writing):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Give a pipe, or what the test asks for."""
    made = Pair(getattr(request, "param", "pipe"))
    yield made
    made.close()


@pytest.fixture
def open_stdout() -> Iterator[Callable[..., Stdout]]:
    """Give a maker of writers whose own complaints are not shown."""
    null = os.open("/dev/null", os.O_WRONLY)
    made: list[Stdout] = []

    def opened(fd: int, *, limit: int = 1 << 20, stderr: int = null) -> Stdout:
        made.append(Stdout(fd, notice=told, limit=limit, stderr=stderr))
        return made[-1]

    yield opened
    for one in made:
        one.close()
    os.close(null)


def told(lines: int) -> bytes:
    """Say how many lines are missing."""
    return NOTICE % lines


def line(number: int, length: int = 20) -> bytes:
    """Make a line that can be told from all others and shows when it is torn."""
    return (b"<%08d" % number).ljust(length - 2, b".") + b">\n"


def drained(out: Stdout, pair: Pair, step: int = 1 << 20) -> bytes:
    """Be the loop and the reader in turns, until nothing is left."""
    data = b""
    while True:
        data += (piece := pair.read(step))
        if not out.wants_write and not piece:
            return data
        if select.select([], [out], [], 0)[1] and out.wants_write:
            out.flush()


def accounted(data: bytes) -> tuple[int, int]:
    """Check that lines are whole, in order, and that each gap is told exactly; return how many came and went."""
    came = went = 0
    for got in data.removesuffix(b"\n").split(b"\n") if data else []:
        if notice := re.fullmatch(rb"dropped lines=(\d+)", got):
            went += int(notice[1])
        else:
            whole = re.fullmatch(rb"<(\d{8})\.*>", got)
            assert whole, got
            assert int(whole[1]) == came + went
            came += 1
    return came, went


def fill(out: Stdout, length: int = 100) -> int:
    """Write numbered lines until the other side takes no more; return how many."""
    for number in range(100_000):
        out.write(line(number, length))
        if out.wants_write:
            return number + 1
    message = "it is never full"
    raise AssertionError(message)


@pytest.mark.parametrize("pair", KINDS, indirect=True)
def test_a_full_output_never_holds_the_supervisor(pair: Pair, open_stdout: Callable[..., Stdout]) -> None:
    """A reader that has stopped reading costs memory up to the limit, and no waiting."""
    out = open_stdout(pair.writing, limit=10_000)
    fill(out)

    for number in range(1000):
        out.write(line(number))

    assert out.wants_write
    assert out.dropped > 0


@pytest.mark.parametrize("pair", KINDS, indirect=True)
@pytest.mark.parametrize("is_blocking", [True, False])
def test_whoever_shares_the_output_finds_it_as_it_was(
    pair: Pair,
    open_stdout: Callable[..., Stdout],
    *,
    is_blocking: bool,
) -> None:
    """O_NONBLOCK belongs to the description that others hold too: it is neither set nor cleared."""
    os.set_blocking(pair.writing, is_blocking)
    before = fcntl.fcntl(pair.writing, fcntl.F_GETFL)
    out = open_stdout(pair.writing)

    fill(out)
    during = fcntl.fcntl(pair.writing, fcntl.F_GETFL)
    drained(out, pair)
    out.close()

    assert before == during == fcntl.fcntl(pair.writing, fcntl.F_GETFL)


@pytest.mark.parametrize("pair", KINDS, indirect=True)
@pytest.mark.parametrize("step", [97, 4096, 100_000])
def test_a_slow_reader_gets_every_line_whole_and_in_order(
    pair: Pair,
    step: int,
    open_stdout: Callable[..., Stdout],
) -> None:
    """What waited comes out complete, in whatever portions it is taken, lines of 20 kB included."""
    out = open_stdout(pair.writing)
    written = b""
    for number in range(60):
        lines = line(2 * number) + line(2 * number + 1, (20, 3000, 20_000)[number % 3])
        out.write(lines)
        written += lines

    assert drained(out, pair, step) == written
    assert not out.dropped


@given(
    kind=st.sampled_from(KINDS),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(1, 400), st.sampled_from([20, 90, 1000, 5000, 30_000])),
            st.tuples(st.just("read"), st.integers(1, 100_000), st.just(0)),
        ),
        max_size=40,
    ),
)
@settings(max_examples=150)
def test_every_gap_is_told_where_it_is(kind: str, steps: list[tuple[str, int, int]]) -> None:
    """Whatever is written and read in whatever order: whole lines, in order, each gap with its exact number."""
    pair = Pair(kind)
    out = Stdout(pair.writing, notice=told, limit=50_000)
    number = 0
    data = b""
    try:
        for step, amount, length in steps:
            if step == "write":
                many = min(amount, max(1, 200_000 // length))
                out.write(b"".join(line(number + each, length) for each in range(many)))
                number += many
            else:
                data += pair.read(amount)
                if select.select([], [out], [], 0)[1]:
                    out.flush()
        # Drops that nothing follows are told with the next line.
        data += drained(out, pair)
        out.write(line(number))
        data += drained(out, pair)
    finally:
        out.close()
        pair.close()

    assert accounted(data) == (number + 1 - out.dropped, out.dropped)


STORIES = given(
    steps=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 90)), max_size=60),
    limit=st.integers(30, 200),
)


def written(steps: list[tuple[int, int]], limit: int) -> tuple[Stdout, Stingy, int]:
    """Write so many lines, then take so many bytes, again and again; return how many lines there were, too."""
    sink = Stingy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nonblocking, "writer_of", lambda _fd: sink)
        out = Stdout(1, notice=told, limit=limit)
    number = 0
    for lines, room in steps:
        out.write(b"".join(line(number + each) for each in range(lines)))
        number += lines
        sink.room += room
        out.flush()
    return out, sink, number


@STORIES
def test_no_portion_is_too_small(steps: list[tuple[int, int]], limit: int) -> None:
    """However few bytes are taken at a time, in the middle of a line or of a notice, the account is exact."""
    out, sink, number = written(steps, limit)
    sink.room = 1 << 20
    out.flush()
    out.write(line(number))

    assert accounted(sink.taken) == (number + 1 - out.dropped, out.dropped)


@STORIES
def test_what_no_notice_tells_of_is_known_at_the_end(steps: list[tuple[int, int]], limit: int) -> None:
    """The end may come anywhere, also in the middle of a notice: what is missing is announced, or in `missing`."""
    out, sink, number = written(steps, limit)
    out.close()

    came, announced = accounted(sink.taken[: sink.taken.rfind(b"\n") + 1])
    assert (came, announced + out.missing) == (number - out.dropped, out.dropped)


class Stingy:
    """A sink that takes no more than it has room for."""

    can_wait = True
    piece = 64 * 1024
    fd = -1

    def __init__(self) -> None:
        self.room = 0
        self.taken = b""

    def send(self, data: bytes) -> int:
        """Take what fits."""
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.taken += taken
        self.room -= len(taken)
        return len(taken)

    def close(self) -> None:
        """Keep nothing open."""


def test_one_stuck_time_is_told_in_one_line(pair: Pair, open_stdout: Callable[..., Stdout]) -> None:
    """When the reader comes back it sees what had gone out, one line with the number, and the newest lines."""
    out = open_stdout(pair.writing, limit=1000)
    stuck_after = fill(out, length=20)
    for number in range(stuck_after, stuck_after + 500):
        out.write(line(number))

    data = drained(out, pair)

    assert data.count(b"dropped") == 1
    assert data.endswith(NOTICE % out.dropped + b"".join(line(stuck_after + 450 + n) for n in range(50)))
    assert accounted(data) == (stuck_after + 500 - out.dropped, out.dropped)


def test_lines_still_come_while_others_are_dropped(pair: Pair, open_stdout: Callable[..., Stdout]) -> None:
    """A reader that is always too slow gets lines, not only notices that lines are missing."""
    out = open_stdout(pair.writing, limit=1000)
    data = b""
    number = fill(out)
    for _ in range(50):
        for _ in range(20):
            out.write(line(number, 100))
            number += 1
        data += pair.read(100)
        out.flush()
    data += drained(out, pair)

    came, went = accounted(data)
    assert (came + went, went) == (number, out.dropped)
    assert came > 100


def test_lines_of_others_on_the_same_pipe_do_not_tear_ours(pair: Pair, open_stdout: Callable[..., Stdout]) -> None:
    """A command that shares the pipe writes between our lines, never within one (up to PIPE_BUF)."""
    out = open_stdout(pair.writing)
    for number in range(600):
        out.write(line(number, 10 + number))
    data = b""
    others = 0
    while out.wants_write:
        data += pair.read(6000)
        while select.select([], [pair.writing], [], 0)[1] and out.wants_write:
            if others % 3:
                out.flush()
            else:
                os.write(pair.writing, b"another's\n")
            others += 1
    data += pair.read()

    assert others > 20
    ours = [got for got in data.splitlines(keepends=True) if got != b"another's\n"]
    assert accounted(b"".join(ours)) == (600, 0)


def test_a_loop_that_waits_is_woken_and_not_spun(pair: Pair, open_stdout: Callable[..., Stdout]) -> None:
    """Writable is reported when a flush would get something out, and not while it would not."""
    out = open_stdout(pair.writing)
    fill(out)
    poll = select.epoll()
    poll.register(out.fileno(), select.EPOLLOUT)
    try:
        assert poll.poll(0) == []
        pair.read(50)  # half of the oldest line: no place in the pipe is free yet
        assert poll.poll(0) == []
        pair.read(50)
        assert poll.poll(0)
        out.flush()
        assert not out.wants_write
    finally:
        poll.close()


def test_a_full_device_is_counted_and_never_waited_for(open_stdout: Callable[..., Stdout]) -> None:
    """/dev/full, like a full disk, takes nothing: no exception, no backlog, one complaint on stderr."""
    reading, writing = os.pipe()
    full = os.open("/dev/full", os.O_WRONLY)
    out = open_stdout(full, stderr=writing)

    for number in range(100):
        out.write(line(number))

    assert (out.dropped, out.wants_write) == (100, False)
    assert os.read(reading, 4096).decode() == (
        f"prod-run: cannot write to standard output: {os.strerror(errno.ENOSPC)}. "
        "Lines are dropped until it works again.\n"
    )
    for fd in (reading, writing, full):
        os.close(fd)


@pytest.mark.parametrize("pair", KINDS, indirect=True)
def test_a_reader_that_goes_away_is_survived(pair: Pair, open_stdout: Callable[..., Stdout]) -> None:
    """What waited and what comes is dropped and counted, nothing is raised, and nothing is waited for."""
    out = open_stdout(pair.writing)
    queued = fill(out)
    if os.isatty(pair.writing):
        termios.tcflush(pair.writing, termios.TCIOFLUSH)
    os.close(pair.reading)
    pair.reading = -1

    out.flush()
    for number in range(10):
        out.write(line(number))

    assert not out.wants_write
    assert 11 <= out.dropped <= queued + 10


def test_both_outputs_on_one_broken_pipe_are_survived(pair: Pair, open_stdout: Callable[..., Stdout]) -> None:
    """With 2>&1 there is nobody left to complain to."""
    os.close(pair.reading)
    pair.reading = -1
    out = open_stdout(pair.writing, stderr=pair.writing)

    out.write(line(0) + line(1))

    assert out.dropped == 2


def test_complaining_never_waits(pair: Pair, open_stdout: Callable[..., Stdout]) -> None:
    """A stderr that is a full pipe does not hold the supervisor either."""
    os.set_blocking(pair.writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pair.writing, b"x" * 4096)
    os.set_blocking(pair.writing, True)
    full = os.open("/dev/full", os.O_WRONLY)

    open_stdout(full, stderr=pair.writing).write(line(0))

    os.close(full)


def test_a_new_reader_of_a_fifo_is_told_what_it_missed(tmp_path: Path, open_stdout: Callable[..., Stdout]) -> None:
    """A log collector that restarts gets the number of lines that nobody read, then the new ones."""
    path = tmp_path / "log"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(path, os.O_WRONLY)
    out = open_stdout(writing)
    out.write(line(0))
    os.close(reading)
    out.write(line(1) + line(2))

    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    out.write(line(3))

    # pipe(7): what the former reader left unread is still in it.
    assert os.read(reading, 4096) == line(0) + NOTICE % 2 + line(3)
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("flags", [0, os.O_APPEND])
def test_a_file_keeps_what_others_write_to_it(tmp_path: Path, flags: int, open_stdout: Callable[..., Stdout]) -> None:
    """`> log` and `>> log`: the position is shared with the shell's other commands, and nobody overwrites anybody."""
    path = tmp_path / "log"
    path.write_bytes(b"former\n")
    fd = os.open(path, os.O_WRONLY | flags)
    os.lseek(fd, 0, os.SEEK_END)
    out = open_stdout(fd)

    out.write(line(0))
    os.write(fd, b"another's\n")
    out.write(line(1))

    assert path.read_bytes() == b"former\n" + line(0) + b"another's\n" + line(1)
    assert not out.wants_write
    os.close(fd)


def test_a_full_disk_leaves_whole_lines_when_there_is_room_again(
    tmp_path: Path,
    open_stdout: Callable[..., Stdout],
) -> None:
    """A line of which half was written is ended first, then comes the number of the missing ones."""
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    out = open_stdout(fd)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # setrlimit(2): at the limit write(2) is short, then EFBIG (SIGXFSZ is ignored by CPython).
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, limits[1]))
    try:
        out.write(line(0) + line(1) + line(2) + line(3))
        out.write(line(4))
        size = path.stat().st_size
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    out.write(line(5))

    assert (size, out.dropped) == (50, 2)
    assert path.read_bytes() == line(0) + line(1) + line(2) + NOTICE % 2 + line(5)
    os.close(fd)


@pytest.mark.parametrize("pair", ["datagrams"], indirect=True)
def test_a_datagram_is_one_line(pair: Pair, open_stdout: Callable[..., Stdout]) -> None:
    """A socket that keeps boundaries gets one line in each message."""
    open_stdout(pair.writing).write(line(0) + line(1, 5000))

    assert [os.read(pair.reading, 10_000) for _ in range(2)] == [line(0), line(1, 5000)]


@pytest.mark.parametrize("pair", ["terminal"], indirect=True)
def test_a_terminal_that_cannot_be_opened_again_is_asked_for_room(
    pair: Pair,
    open_stdout: Callable[..., Stdout],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As another user, or without /proc: a stopped terminal still does not hold the supervisor."""
    monkeypatch.setattr(nonblocking, "_open_terminal", lambda _fd: None)
    out = open_stdout(pair.writing)
    out.write(line(0, 1000))
    first = drained(out, pair)
    termios.tcflow(pair.writing, termios.TCOOFF)

    out.write(line(1))

    assert first == line(0, 1000)
    assert out.wants_write
    termios.tcflow(pair.writing, termios.TCOON)
    assert drained(out, pair) == line(1)


def test_a_background_job_is_not_told_to_have_fewer_workers() -> None:
    """With `stty tostop` a write from the background raises SIGTTOU: ours does not, and is not repeated for ever."""
    child, master = pty.fork()
    if not child:
        _write_from_the_background()
    _, status = os.waitpid(child, 0)
    os.close(master)

    assert os.waitstatus_to_exitcode(status) == 0


def _write_from_the_background() -> None:
    """Be the shell and its background job; never returns."""
    result = 99
    try:
        attributes = termios.tcgetattr(1)
        attributes[3] |= termios.TOSTOP
        termios.tcsetattr(1, termios.TCSANOW, attributes)
        job = os.fork()
        if not job:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTTOU, lambda *_: os._exit(98))
            out = Stdout(1, notice=told)
            out.write(line(0))
            os._exit(out.dropped)
        result = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
    finally:
        os._exit(result)


def test_a_closed_output_never_becomes_another_file(tmp_path: Path, open_stdout: Callable[..., Stdout]) -> None:
    """Started with `>&-`: lines are counted, and do not end in the file that gets the free number."""
    fd = os.open("/dev/null", os.O_WRONLY)
    os.close(fd)
    out = open_stdout(fd)
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)

    out.write(line(0))

    assert other == fd
    assert out.dropped == 1
    assert (tmp_path / "other").read_bytes() == b""
    os.close(other)


@pytest.mark.parametrize("pair", KINDS, indirect=True)
def test_closing_counts_what_is_left_and_leaves_nothing_open(pair: Pair) -> None:
    """The end does not wait for the reader, and only the caller's descriptor stays."""
    before = open_descriptors()
    out = Stdout(pair.writing, notice=told)
    inheritable = [fd for fd in open_descriptors() - before if os.get_inheritable(fd)]
    written = fill(out)

    out.close()

    data = pair.read()
    assert accounted(data[: data.rfind(b"\n") + 1])[0] == written - out.dropped
    assert open_descriptors() == before
    assert not inheritable


def test_a_line_after_the_end_is_counted(pair: Pair, open_stdout: Callable[..., Stdout]) -> None:
    """Whoever still has something to say after closing harms nobody."""
    out = open_stdout(pair.writing)
    out.close()
    out.write(line(0))
    out.close()

    assert (out.dropped, pair.read()) == (1, b"")


def open_descriptors() -> set[int]:
    """List the open descriptors of this process."""
    found = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    # One of them was the listing itself.
    return {fd for fd in found if Path(f"/proc/self/fd/{fd}").exists()}
