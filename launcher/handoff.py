"""
What the command line hands to the supervisor across the exec.

Owns one value and its encoding; it travels in a sealed memfd whose number is the supervisor's argument.
Must never read the environment or open anything: `cli` makes it, `supervisor.main` reads it.
"""

from __future__ import annotations

from launcher import protocol
from launcher.lean import NamedTuple

AS_MANY_AS_WORKERS = -1  # --max-surge was not given

# What ld.so, libc and CPython read before the first line of a program; all else travels in a memfd.
_KEPT_NAMES = frozenset(
    (
        *("GLIBC_TUNABLES", "PATH", "HOME", "USER", "LOGNAME", "SHELL"),
        *("TMPDIR", "LANG", "LANGUAGE", "TZ", "SPT_NOENV"),
    )
)
_KEPT_PREFIXES = ("LD_", "MALLOC_", "PYTHON", "LC_")


class Listener(NamedTuple):
    """
    One listening socket; `path`, `device` and `inode` tell a unix socket's file (empty and 0 otherwise).

    One that is our own is held by nobody but prod-run and its workers.
    """

    name: str
    address: str  # as people write it: 127.0.0.1:8000, [::1]:80, unix:/run/x.sock
    fd: int
    path: str = ""
    device: int = 0
    inode: int = 0
    is_our_own: bool = False


class Newborn(NamedTuple):
    """A fresh interpreter that has its first order: its PID, and our ends of its channel and output."""

    pid: int
    mark: int  # tells its log records from what it prints
    channel: int
    stdout: int = -1  # -1: it has ours
    stderr: int = -1


POLICY_VARIABLE = "PROD_RUN_WORKER_POLICY"  # in a worker: three words, as the settings of proxies have them


class Ingress(NamedTuple):
    """How connections come in, as written; empty or `off`: plainly."""

    proxy_headers: str = "off"  # off | x-forwarded | forwarded
    proxy_protocol: str = "off"  # off | v1 | v2
    trust: str = ""  # separated by commas
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """
        What an app that reads sockets or headers by itself finds: see launcher.proxy.from_environment.

        Not under the names of the settings: a prod-run that the app starts would take them for its own.
        """
        said = (self.proxy_headers, self.proxy_protocol, self.trust)
        return {POLICY_VARIABLE: " ".join(said)} if self.trust else {}


class Handoff(NamedTuple):
    """Everything that is settled before the supervisor starts; times in seconds."""

    target: str  # MODULE:ATTRIBUTE
    arguments: tuple[str, ...]
    name: str
    workers: int
    max_surge: int  # AS_MANY_AS_WORKERS: follows the number of workers
    interface: str  # auto | callable | wsgi | asgi
    preload: str  # auto | always | never
    restart: str  # always | on-failure | never
    boot_timeout: float
    drain_delay: float
    drain_timeout: float
    stall_timeout: float  # 0: off
    max_rss: int  # bytes; 0: off
    max_age: float  # 0: off
    log_level: str  # debug | info | warning | error
    directory: str  # resolved anew for each generation, so symlinks in it are kept
    interpreter: str  # the same: `python` beside the script as it was called
    runtime_directory: str  # empty: none could be had
    control: str  # path of the socket for prod-ctl; empty: none
    notify_socket: str  # sd_notify(3): where the manager above listens; empty: nowhere
    watchdog: float  # seconds between two signs of life that it expects; 0: none
    lock_fd: int  # keeps the runtime directory ours; -1: none
    environ_fd: int  # sealed memfd with the caller's environment: NUL-separated NAME=value
    open_files: int  # the caller's soft RLIMIT_NOFILE, for the app
    umask: int  # -1: as it is
    listeners: tuple[Listener, ...]
    config: str = ""  # MODULE:CLASS; empty: from the target's annotations
    env_files: tuple[str, ...] = ()
    secrets_dirs: tuple[str, ...] = ()  # empty: the platform's
    templates: tuple[str, ...] = ()  # as written
    template_check: str = ""  # as written; empty: none
    watch: bool = False
    is_factory: bool = False
    server_options: tuple[str, ...] = ()  # as written
    ingress: Ingress = Ingress()
    restart_of_web: str = "always"  # `restart`, if the target turns out to be a web application
    is_workers_given: bool = True  # else such a target may say how many
    log: str = "stdout"  # or syslog[:URL], as written
    log_kind: str = "logfmt"  # console | logfmt | json | message
    log_colour: bool = False
    log_priority: bool = False  # lines begin with <N>, sd-daemon(3)
    log_capture: bool = True
    has_store: bool = False  # the manager above keeps descriptors for us: $FDSTORE, sd_listen_fds(3)
    stored: tuple[Listener, ...] = ()  # what it had kept, and of which nobody knows yet whether it is wanted
    introspect: tuple[Listener, ...] = ()  # where the observer answers; a unix socket is private
    introspect_token_file: str = ""  # absolute; empty: none
    metrics_directory: str = ""  # where the app's processes keep theirs; empty: nowhere
    settings: tuple[tuple[str, str, str], ...] = ()  # name, value, origin
    pidfile: str = ""  # absolute; empty: none
    pidfile_fd: int = -1  # keeps it locked
    before: str = ""  # a command, or MODULE:FUNCTION, as written; empty: nothing
    readiness_fd: int = -1  # where the caller of --daemon waits; -1: nobody does
    command: tuple[str, ...] = ()  # empty: the target is a Python one
    is_prepared: bool = True  # a zygote, or a command's preparer, comes before each generation
    is_observed: bool = True  # output goes through the observer
    signal_mask: tuple[int, ...] = ()  # of the caller, for a command
    ignored_signals: tuple[int, ...] = ()
    rewrites: tuple[tuple[int, int], ...] = ()  # signal → the one that a command gets; 0: none
    successes: tuple[int, ...] = ()  # exit codes that count as 0
    export_secrets: tuple[str, ...] = ()  # what a command has in its environment all the same
    zygote: Newborn | None = None  # of the first generation, if it is on its way

    def encode(self) -> bytes:
        """Turn it into the bytes of a memfd."""
        plain = self._asdict()
        for name in ("listeners", "stored", "introspect"):
            plain[name] = tuple("\t".join(map(str, listener)) for listener in plain[name])
        plain["signal_mask"] = tuple(map(str, self.signal_mask))
        plain["ignored_signals"] = tuple(map(str, self.ignored_signals))
        plain["rewrites"] = tuple(f"{came}:{sent}" for came, sent in self.rewrites)
        plain["successes"] = tuple(map(str, self.successes))
        plain["settings"] = tuple("\0".join(row) for row in self.settings)  # no argument or variable can hold a NUL
        plain["zygote"] = tuple(map(str, self.zygote or ()))
        return protocol.encode("handoff", **plain)


def is_kept(name: str) -> bool:
    """Say whether a variable is in the environment of our processes at exec; `/proc/PID/environ` shows it for ever."""
    return name in _KEPT_NAMES or name.startswith(_KEPT_PREFIXES)


def decode(data: bytes) -> Handoff:
    """
    Read a handoff back.

    Raises:
        protocol.ProtocolError: these are not the bytes of a handoff.
    """
    message = protocol.decode(data)
    return Handoff(
        target=message.text("target"),
        arguments=message.texts("arguments"),
        name=message.text("name"),
        workers=message.number("workers"),
        max_surge=message.number("max_surge"),
        interface=message.text("interface"),
        preload=message.text("preload"),
        restart=message.text("restart"),
        boot_timeout=message.seconds("boot_timeout"),
        drain_delay=message.seconds("drain_delay"),
        drain_timeout=message.seconds("drain_timeout"),
        stall_timeout=message.seconds("stall_timeout"),
        max_rss=message.number("max_rss"),
        max_age=message.seconds("max_age"),
        log_level=message.text("log_level"),
        directory=message.text("directory"),
        interpreter=message.text("interpreter"),
        runtime_directory=message.text("runtime_directory"),
        control=message.text("control"),
        notify_socket=message.text("notify_socket"),
        watchdog=message.seconds("watchdog"),
        lock_fd=message.number("lock_fd"),
        environ_fd=message.number("environ_fd"),
        open_files=message.number("open_files"),
        umask=message.number("umask"),
        listeners=tuple(_listener(text) for text in message.texts("listeners")),
        config=message.text("config"),
        env_files=message.texts("env_files"),
        secrets_dirs=message.texts("secrets_dirs"),
        templates=message.texts("templates"),
        template_check=message.text("template_check"),
        watch=message.flag("watch"),
        is_factory=message.flag("is_factory"),
        server_options=message.texts("server_options"),
        ingress=Ingress(*message.texts("ingress")),
        restart_of_web=message.text("restart_of_web"),
        is_workers_given=message.flag("is_workers_given"),
        log=message.text("log"),
        log_kind=message.text("log_kind"),
        log_colour=message.flag("log_colour"),
        log_priority=message.flag("log_priority"),
        log_capture=message.flag("log_capture"),
        has_store=message.flag("has_store"),
        stored=tuple(_listener(text) for text in message.texts("stored")),
        introspect=tuple(_listener(text) for text in message.texts("introspect")),
        introspect_token_file=message.text("introspect_token_file"),
        metrics_directory=message.text("metrics_directory"),
        settings=tuple(_setting(text) for text in message.texts("settings")),
        pidfile=message.text("pidfile"),
        pidfile_fd=message.number("pidfile_fd"),
        before=message.text("before"),
        readiness_fd=message.number("readiness_fd"),
        command=message.texts("command"),
        is_prepared=message.flag("is_prepared"),
        is_observed=message.flag("is_observed"),
        signal_mask=_numbers(message, "signal_mask"),
        ignored_signals=_numbers(message, "ignored_signals"),
        rewrites=tuple((int(came), int(sent)) for came, _, sent in _pairs(message, "rewrites")),
        successes=_numbers(message, "successes"),
        export_secrets=message.texts("export_secrets"),
        zygote=Newborn(*map(int, message.texts("zygote"))) if message.texts("zygote") else None,
    )


def _listener(text: str) -> Listener:
    name, address, fd, path, device, inode, own = text.split("\t")
    return Listener(name, address, int(fd), path, int(device), int(inode), own == str(True))


def _numbers(message: protocol.Message, key: str) -> tuple[int, ...]:
    return tuple(map(int, message.texts(key)))


def _pairs(message: protocol.Message, key: str) -> tuple[tuple[str, str, str], ...]:
    return tuple(text.partition(":") for text in message.texts(key))


def _setting(text: str) -> tuple[str, str, str]:
    name, value, origin = text.split("\0")
    return name, value, origin
