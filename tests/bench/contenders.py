"""
Who is measured: one small value for each contender, in the set-up that its own documentation recommends.

Owns the command lines, the files they read, and the way to ask for a reload.  Must never start or measure
anything: `environment` installs and `session` starts.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ("first", "up", "slow", "kill", "reload", "memory", "own", "idle", "many")  # of the measures, in their order


class Place(NamedTuple):
    """Where one run of a contender takes place."""

    directory: Path  # its working directory, with a copy of the apps
    port: int
    workers: int
    bin: Path  # of the virtual environment


class Contender(NamedTuple):
    """How one contender is had, started, reloaded and looked at."""

    name: str
    program: str  # must be in the environment or, for a Debian package, on PATH
    argv: Callable[[Place], list[str]]  # may write files into the directory
    packages: tuple[str, ...] = ()  # from PyPI
    debian: str = ""
    reload: signal.Signals | Callable[[Place], list[str]] | None = None  # to the first process, or a program to run
    measures: tuple[str, ...] = tuple(name for name in NAMES if name != "reload")
    is_split: bool = False  # its own part is all processes but the workers, not only the first one
    files: tuple[str, ...] = ()  # that say as much as its command line


def prod_run(place: Place, *words: str) -> list[str]:
    """Serve through `serving.py` on worker.sockets, unless another target is named."""
    bind = f"127.0.0.1:{place.port}"
    own = words or ("target:main",)
    return [str(place.bin / "prod-run"), "--workers", str(place.workers), "--bind", bind, *own]


def prod_run_asgi(place: Place) -> list[str]:
    """Have uvicorn serve what uvicorn serves by itself."""
    return prod_run(place, "asgi:app")


def prod_run_wsgi(place: Place) -> list[str]:
    """Have gunicorn's threads serve what gunicorn serves by itself, with as many of them."""
    return prod_run(place, "--server-option", "threads=4", "wsgi_on_prod_run:app")


def gunicorn(place: Place, *more: str) -> list[str]:
    """Take the worker for threads, with the number that the documentation uses."""
    words = ["--worker-class", "gthread", "--threads", "4", "--workers", str(place.workers), *more]
    bind = f"127.0.0.1:{place.port}"
    return [str(place.bin / "gunicorn"), *words, "--bind", bind, "--config", "gunicorn_conf.py", "wsgi:app"]


def gunicorn_preload(place: Place) -> list[str]:
    """Import before the fork."""
    return gunicorn(place, "--preload")


def uvicorn(place: Place) -> list[str]:
    """Take uvicorn[standard]."""
    words = ["--workers", str(place.workers), "--host", "127.0.0.1", "--port", str(place.port), "--no-access-log"]
    return [str(place.bin / "uvicorn"), *words, "asgi:app"]


def granian(place: Place) -> list[str]:
    """Take the ASGI interface; without the respawn flag a dead worker ends the whole."""
    words = ["--interface", "asgi", "--workers", str(place.workers), "--respawn-failed-workers"]
    return [str(place.bin / "granian"), *words, "--host", "127.0.0.1", "--port", str(place.port), "asgi:app"]


def uwsgi(place: Place, *more: str) -> list[str]:
    """Take the options of uWSGI's "things to know"; the app is imported before the fork."""
    words = ["--master", "--need-app", "--die-on-term", "--single-interpreter", "--enable-threads", "--vacuum", *more]
    words += ["--disable-logging", "--http-socket", f"127.0.0.1:{place.port}", "--processes", str(place.workers)]
    return [str(place.bin / "uwsgi"), *words, "--module", "wsgi:app"]


def uwsgi_chain(place: Place) -> list[str]:
    """Reload worker by worker, which needs an import in each."""
    return uwsgi(place, "--lazy-apps", "--master-fifo", "master.fifo")


def ask_uwsgi(place: Place) -> list[str]:
    """Ask for a chain reload."""
    del place
    return ["/bin/sh", "-c", "printf c > master.fifo"]


SUPERVISORD = """\
[supervisord]
nodaemon=true
user=root
[program:web]
command={python} plain.py port {port}
process_name=%(program_name)s_%(process_num)d
numprocs={workers}
"""


def supervisord(place: Place) -> list[str]:
    """Start copies that share a port with SO_REUSEPORT."""
    write(place, "supervisord.conf", SUPERVISORD)
    return [str(place.bin / "supervisord"), "--configuration", "supervisord.conf"]


CIRCUS = """\
[circus]
endpoint = ipc://{directory}/endpoint
pubsub_endpoint = ipc://{directory}/pubsub
[watcher:web]
cmd = {python} plain.py fd $(circus.sockets.web)
use_sockets = True
copy_env = True
numprocesses = {workers}
[socket:web]
host = 127.0.0.1
port = {port}
"""


def circus(place: Place) -> list[str]:
    """Hand one listening socket to all copies."""
    write(place, "circus.ini", CIRCUS)
    return [str(place.bin / "circusd"), "circus.ini"]


def ask_circus(place: Place) -> list[str]:
    """Ask for a reload of the watcher."""
    return [str(place.bin / "circusctl"), "--endpoint", f"ipc://{place.directory}/endpoint", "reload", "web"]


S6_RUN = "#!/bin/sh\nexec {python} ../../plain.py port {port}\n"


def s6(place: Place) -> list[str]:
    """Make one service directory for each copy; the copies share a port with SO_REUSEPORT."""
    for number in range(place.workers):
        write(place, f"services/web{number}/run", S6_RUN)
        (place.directory / f"services/web{number}/run").chmod(0o755)
    return ["s6-svscan", "services"]


def write(place: Place, name: str, template: str) -> None:
    """Write a file of a contender's set-up."""
    path = place.directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    python = place.bin / "python"
    path.write_text(template.format(python=python, directory=place.directory, port=place.port, workers=place.workers))


HUP = signal.SIGHUP
NOT_MANY = tuple(name for name in NAMES if name != "many")  # 200 interpreters of their own would say nothing new
LOGGING = (*(name for name in NAMES if name != "reload"), "logs")

ALL = (
    Contender("prod-run", "prod-run", prod_run, reload=HUP, measures=(*NAMES, "check", "logs")),  # nobody has check
    Contender("prod-run-wsgi", "prod-run", prod_run_wsgi, ("gunicorn",), reload=HUP, measures=NAMES),
    Contender("prod-run-asgi", "prod-run", prod_run_asgi, ("uvicorn[standard]",), reload=HUP, measures=NAMES),
    Contender("gunicorn", "gunicorn", gunicorn, ("gunicorn",), reload=HUP, measures=NAMES, files=("gunicorn_conf.py",)),
    Contender("gunicorn-preload", "gunicorn", gunicorn_preload, ("gunicorn",), files=("gunicorn_conf.py",)),
    Contender("uwsgi", "uwsgi", uwsgi, ("pyuwsgi",)),
    Contender("uwsgi-chain", "uwsgi", uwsgi_chain, ("pyuwsgi",), reload=ask_uwsgi, measures=("reload",)),
    Contender("granian", "granian", granian, ("granian",), reload=HUP, measures=NOT_MANY),
    Contender("uvicorn", "uvicorn", uvicorn, ("uvicorn[standard]",), reload=HUP, measures=NOT_MANY),
    Contender(
        "supervisord", "supervisord", supervisord, ("supervisor",), measures=LOGGING, files=("supervisord.conf",)
    ),
    Contender(
        "circus", "circusd", circus, ("circus",), reload=ask_circus, measures=(*NAMES, "logs"), files=("circus.ini",)
    ),
    Contender("s6", "s6-svscan", s6, debian="s6", measures=LOGGING, is_split=True, files=("services/web0/run",)),
)
OWN = ALL[0].name
