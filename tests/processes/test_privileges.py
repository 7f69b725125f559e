"""`--user` and `--group`: root binds, the service's user does all the rest."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes.privileged import EXTRA, GID, PROD_CTL, ROOT, UID, USER, Service, ids, name_of, service
from tests.processes.running import PROD_RUN, Running, descendants, is_alive, status, until
from tests.processes.test_command_alone import PYTHON, RECORD

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["service"]

SERVING = """
import os
from launcher import Worker

print("imported as", os.getuid(), flush=True)

def main(worker: Worker):
    print("runs as", os.getresuid(), os.getresgid(), sorted(os.getgroups()), flush=True)
    print("home", os.environ.get("HOME"), os.environ.get("USER"), os.environ.get("XDG_RUNTIME_DIR"), flush=True)
    worker.ready()
    while not worker.stopping.is_set():
        try:
            client, _ = worker.sockets["default"].accept()
        except (BlockingIOError, KeyError):
            worker.stopping.wait(0.02)
            continue
        client.sendall(str(os.getuid()).encode())
        client.close()
"""


def privileged_port() -> int:
    """Find a free port that only root may bind."""
    for port in range(1023, 600, -1):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.skip("no port below 1024 is free")


def test_nothing_stays_root_and_everything_works(start: Callable[..., Running], service: Service) -> None:
    """A port below 1024, all processes, a respawn, a reload, the control socket, stacks: as the user, for root too."""
    where, name, port = service.app(SERVING), name_of(service), privileged_port()
    running = start(
        *("--user", USER, "--name", name, "-w", 2, "-b", f"127.0.0.1:{port}", where, "app:main"), before=service.before
    )
    running.wait_for(event="committed", generation=1)
    running.wait_for(f"imported as {UID}")
    running.wait_for(f"runs as ({UID}, {UID}, {UID}) ({GID}, {GID}, {GID}) [{GID}, {EXTRA}]")
    running.wait_for(f"home {service.home} {USER} None")
    running.spare()
    everybody = [running.pid, *descendants(running.pid)]

    assert len(everybody) == 6, "supervisor, observer, zygote, two workers, spare"
    for pid in everybody:
        assert ids(pid) == ({UID}, {GID}, {GID, EXTRA})
        assert status(pid)["NoNewPrivs"] == "1"
        assert {int(status(pid)[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Amb")} == {0}
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert client.recv(100) == str(UID).encode()

    os.kill(next(iter(running.workers())), signal.SIGKILL)
    running.wait_for(event="lost worker")
    control = Path(f"/run/prod-run/{name}/control.sock")
    assert (control.stat().st_uid, stat.S_IMODE(control.stat().st_mode)) == (UID, 0o600)
    assert (control.parent.stat().st_uid, stat.S_IMODE(control.parent.stat().st_mode)) == (UID, 0o700)
    reloaded = subprocess.run([PROD_CTL, "--socket", control, "reload", "--wait"], capture_output=True, text=True)
    assert reloaded.returncode == 0, reloaded.stdout
    subprocess.run([PROD_CTL, "--socket", control, "stacks"], check=True, capture_output=True)
    running.wait_for(event="stacks", generation=2)
    assert running.stop() == 0
    assert not any("imported as 0" in line["text"] for line in running.lines)


def test_the_death_of_the_supervisor_is_the_death_of_all(start: Callable[..., Running], service: Service) -> None:
    """The kernel forgets the signal for a parent's death when ids change (prctl(2)): it is asked for afterwards."""
    where = service.app(SERVING)
    running = start("--user", USER, "--name", name_of(service), where, "app:main", before=service.before)
    running.wait_for(event="committed")
    running.spare()
    family = descendants(running.pid)

    running.send(signal.SIGKILL)

    until(lambda: not [pid for pid in family if is_alive(pid)], "everybody dies with the supervisor")


def test_secrets_are_read_as_the_user(start: Callable[..., Running], service: Service) -> None:
    """What only root may read is a problem of the configuration, at the start and at a reload."""
    secrets = service.directory / "secrets"
    secrets.mkdir()
    (secrets / "app_token").write_text("of the user")
    (secrets / "app_token").chmod(0o400)
    where = service.app(
        "import environ, launcher\n"
        "@environ.config(prefix='APP')\nclass Config:\n    token = launcher.secret()\n"
        "def main(worker: launcher.Worker[Config]):\n    worker.ready()\n    worker.stopping.wait()\n"
    )
    words = ("--user", USER, "--name", name_of(service), "--secrets-dir", secrets, where, "app:main")
    refused = start(*words, before=service.before)
    assert refused.wait() == 78
    assert f"cannot be read: permission denied. Let user {UID} read it" in refused.text()

    os.chown(secrets / "app_token", UID, GID)
    running = start(*words, before=service.before)
    running.wait_for(event="committed", generation=1)
    os.chown(secrets / "app_token", 0, 0)

    assert running.reload()["event"] == "rejected"
    assert running.stop() == 0


def test_the_check_imports_nothing_as_root(service: Service) -> None:
    """`--check-config` of root is as careful as a start; a user that is not there is a problem, and no import."""
    where = service.app("import os, sys\nprint('imported as', os.getuid(), file=sys.stderr)\ndef main(): ...\n")
    good = service.run(PROD_RUN, "--check-config", "--user", USER, where, "app:main")
    bad = service.run(PROD_RUN, "--check-config", "--user", "nobody-has-it", where, "app:main")
    shown = service.run(PROD_RUN, "--show-config", "--user", USER, where, "app:main")

    assert (good.returncode, bad.returncode, shown.returncode) == (0, 78, 0)
    assert f"imported as {UID}" in good.stderr
    assert "--user  there is no user 'nobody-has-it' on this system" in bad.stdout
    assert "imported" not in bad.stderr
    assert f"imported as {UID}" in shown.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--user", 48999), ({48999}, {48999}, {48999})),
        (("--user", 48999, "--group", 48998), ({48999}, {48998}, {48998})),
        (("--user", UID), ({UID}, {GID}, {GID, EXTRA})),
        (("--user", USER, "--group", f"{USER}extra"), ({UID}, {EXTRA}, {EXTRA})),
    ],
)
def test_numbers_do_as_well_as_names(
    start: Callable[..., Running], service: Service, words: tuple[object, ...], expected: object
) -> None:
    """A number needs no entry in passwd; its group is then the one of the same number, never root's."""
    running = start(*words, "--name", name_of(service), service.app(SERVING), "app:main", before=service.before)
    running.wait_for(event="committed")

    assert ids(running.pid) == expected
    assert running.stop() == 0


def test_who_is_not_root_is_told_so(service: Service) -> None:
    """One sentence, and the code of a refusal by the system; to become oneself is no change."""
    where = service.app("def main(): ...\n")
    as_user = ("setpriv", "--reuid", UID, "--regid", GID, "--clear-groups")
    other = service.run(*as_user, PROD_RUN, "--user", "root", where, "app:main")
    itself = service.run(*as_user, PROD_RUN, "--user", USER, where, "app:main")

    assert other.returncode == 71
    assert "--user: only root may become user root. Start prod-run as root, or leave this out" in other.stderr
    assert (itself.returncode, "finished" in itself.stdout) == (0, True), itself.stderr


def test_an_interpreter_that_the_user_may_not_read_is_a_sentence(service: Service) -> None:
    """A virtual environment in root's home is the usual mistake."""
    closed = service.directory / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to(Path(PROD_RUN).with_name("python"))
    code = "import sys; sys.argv[0] = 'prod-run'; from launcher.cli import main; main()"
    path = f"PYTHONPATH={ROOT}:{sysconfig.get_path('purelib')}"
    answer = service.run("env", path, closed / "python", "-c", code, "--user", USER, "app:main")

    assert answer.returncode == 69, answer.stderr
    assert f"--user: {USER} may not read {closed}/python" in answer.stderr


def test_the_umask_is_for_all_that_is_made(start: Callable[..., Running], service: Service) -> None:
    """The app's files, and sockets."""
    where = service.app(
        "import os\nfrom launcher import Worker\n"
        "def main(worker: Worker):\n    print('umask', oct(os.umask(0)), flush=True)\n"
        "    worker.ready()\n    worker.stopping.wait()\n"
    )
    path = service.home / "app.sock"
    running = start(
        *("--user", USER, "--umask", "0027", "--name", name_of(service), "-b", f"unix:{path}", where, "app:main"),
        before=service.before,
    )
    running.wait_for("umask 0o27")

    assert (path.stat().st_uid, path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) == (UID, GID, 0o750)
    assert running.stop() == 0
    assert not path.exists()


def test_a_pidfile_in_roots_place_stays_roots_and_is_emptied(start: Callable[..., Running], service: Service) -> None:
    """Who may write it could have root kill anybody; the user cannot remove it, but it never stays stale."""
    path = service.directory / "shop.pid"
    words = ("--user", USER, "--pidfile", path, service.app(SERVING), "app:main")
    running = start(*words, "--name", name_of(service), before=service.before)
    running.wait_for(event="committed")

    assert path.read_text() == f"{running.pid}\n"
    assert path.stat().st_uid == 0
    second = service.run(PROD_RUN, *words, "--name", name_of(service) + "2")
    assert second.returncode == 69
    assert f"--pidfile: in use by a running prod-run (PID {running.pid})" in second.stderr
    assert running.stop() == 0
    assert path.read_text() == ""


def test_a_pidfile_in_the_users_place_is_the_users_and_goes(start: Callable[..., Running], service: Service) -> None:
    """Also after SIGKILL the next start takes it over."""
    path = service.home / "shop.pid"
    words = ("--user", USER, "--pidfile", path, "--name", name_of(service), service.app(SERVING), "app:main")
    killed = start(*words, before=service.before)
    killed.wait_for(event="committed")
    killed.send(signal.SIGKILL)
    killed.wait()
    assert path.read_text() == f"{killed.pid}\n"

    running = start(*words, before=service.before)
    running.wait_for(event="committed")

    assert path.read_text() == f"{running.pid}\n"
    assert path.stat().st_uid == UID
    assert running.stop() == 0
    assert not path.exists()


def test_a_link_that_the_user_laid_is_not_followed_by_root(service: Service) -> None:
    """In a directory of the user's the pidfile is made by the user."""
    victim = service.directory / "victim"
    victim.write_text("17\n")
    (service.home / "shop.pid").symlink_to(victim)
    answer = service.run(
        PROD_RUN, "--user", USER, "--pidfile", service.home / "shop.pid", service.app(SERVING), "app:main"
    )

    assert answer.returncode == 69
    assert "a symbolic link is there" in answer.stderr
    assert victim.read_text() == "17\n"


def test_what_root_ran_before_is_handed_over(start: Callable[..., Running], service: Service) -> None:
    """An instance that was root's becomes the user's, its runtime directory with it; not while it runs."""
    words = ("--name", name_of(service), service.app(SERVING), "app:main")
    roots = start(*words, before=service.before, env={"XDG_RUNTIME_DIR": ""})
    roots.wait_for(event="committed")
    held = start("--user", USER, *words, before=service.before)
    assert held.wait() == 69
    assert f"a running prod-run already has this name: PID {roots.pid}" in held.text()
    assert roots.stop() == 0
    lock = Path(f"/run/prod-run/{name_of(service)}/lock")
    assert lock.stat().st_uid == 0

    running = start("--user", USER, *words, before=service.before)
    running.wait_for(event="committed")

    assert (lock.stat().st_uid, lock.parent.stat().st_uid) == (UID, UID)
    assert Path("/run/prod-run").stat().st_uid == 0
    assert running.stop() == 0


def test_a_daemon_of_root_is_the_users(service: Service) -> None:
    """When the caller returns, nobody of prod-run is root."""
    path = service.home / "shop.pid"
    words = ("--daemon", "--user", USER, "--pidfile", path, "--name", name_of(service), service.app(SERVING))
    log = service.directory / "log"
    answer = service.run("sh", "-c", f'exec "$@" >{log} 2>&1', "sh", PROD_RUN, *words, "app:main")
    assert answer.returncode == 0, log.read_text()
    pid = int(path.read_text())
    everybody = [pid, *descendants(pid)]
    owners = [ids(each)[0] for each in everybody]
    os.kill(pid, signal.SIGTERM)
    until(lambda: not is_alive(pid), "the daemon ends")

    assert owners == [{UID}] * len(owners)
    assert not path.exists()


@pytest.mark.parametrize(("owner", "mode"), [(0, 0o775), (48999, 0o755)])
def test_root_makes_nothing_where_another_may_put_a_link(service: Service, owner: int, mode: int) -> None:
    """Who may write beside root's file could have any file changed: it is made as the user, who must be able to."""
    shared = service.directory / "shared"
    shared.mkdir()
    os.chown(shared, owner, 48999)
    shared.chmod(mode)
    words = ("--name", name_of(service), "-b", f"unix:{shared}/shop.sock", service.app("def main(): ...\n"), "app:main")
    refused = service.run(PROD_RUN, "--user", USER, *words)

    assert refused.returncode == 69
    assert "no permission to create a socket in" in refused.stderr


def test_no_capability_is_left_of_a_starter_that_was_not_root(service: Service) -> None:
    """The kernel takes them only from root when ids change: with CAP_SETUID the service could become root."""
    kept = "+setuid,+setgid"
    starter = ("setpriv", "--reuid", 48900, "--regid", 48900, "--clear-groups", "--inh-caps", kept, "--ambient-caps")
    answer = service.run(*starter, kept, PROD_RUN, "--user", USER, "--", "grep", "^Cap[IPEA]", "/proc/self/status")

    assert answer.returncode == 0, answer.stderr
    assert [int(line.split()[1], 16) for line in answer.stdout.splitlines()] == [0] * 4


def test_a_user_that_cannot_be_become_is_a_sentence(service: Service) -> None:
    """Root of a user namespace may not have other groups."""
    if service.run("unshare", "-Ur", "true").returncode:
        pytest.skip("no user namespace can be had here")
    answer = service.run("unshare", "-Ur", PROD_RUN, "--user", 1234, service.app(SERVING), "app:main")

    assert answer.returncode == 71
    assert "becoming 1234: the system refused: Operation not permitted. A sandbox" in answer.stderr


def test_the_death_of_the_parent_is_told_to_the_user(start: Callable[..., Running], service: Service) -> None:
    """The kernel forgets --parent-death-signal when ids change (prctl(2)): it is asked for afterwards."""
    os.mkfifo(service.directory / "end")
    parent = (*service.before, "sh", "-c", f'"$@" & read line < {service.directory}/end', "sh")
    words = ("--user", USER, "--name", name_of(service), "--chdir", service.directory, "--parent-death-signal", "USR1")
    running = start(*words, "--", *PYTHON, RECORD, before=parent)
    running.wait_for("there")
    (supervisor,) = [pid for pid in descendants(running.pid) if descendants(pid)]
    (service.directory / "end").write_text("\n")

    until(lambda: "got 10" in running.text(), "SIGUSR1")
    os.kill(supervisor, signal.SIGKILL)
