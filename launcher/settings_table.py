"""
Every setting of prod-run, one row each.

Owns `TABLE`; a setting is added here and nowhere else.
Must never decide anything: `settings` does, `help_text` prints.
"""

from __future__ import annotations

from launcher import addresses, command_settings, ingress_settings, quantities, service_settings
from launcher.logs import syslog_address
from launcher.quantities import one_of
from launcher.setting import Setting

TYPE_CHECKING = False

if TYPE_CHECKING:
    from launcher.setting import Parsed

DEFAULT_INTROSPECT = "127.0.0.1:8900"
_OWNER_ONLY = 0o600


def log_target(text: str) -> str:
    """Read where log lines go; what is checked here is taken apart where they are sent."""
    if text != "stdout":
        syslog_address.parse(text)
    return text


def _mode(name: str, meaning: str, form: str = "") -> Setting:
    """Describe what makes prod-run do something else than start; it has no variable."""
    return Setting(name, form, "", meaning, has_variable=False)


def _template(text: str) -> str:
    """Read what --template takes; it stays a text, since it has to cross an exec."""
    from launcher.appconfig import templates  # noqa: PLC0415  shlex and typing, 10 ms that only a template costs

    templates.template(text)
    return text


def _check_command(text: str) -> str:
    """Read what --template-check takes; it stays a text, as above."""
    from launcher.appconfig import templates  # noqa: PLC0415

    templates.check_command(text)
    return text


def _before(text: str) -> str:
    """Read what --before takes; it stays a text, as above."""
    from launcher import init_task  # noqa: PLC0415

    init_task.command(text)
    return text


def _introspect(text: str) -> Parsed:
    """Read where the observer is to answer; what it shows on a unix socket is for this user, whatever the umask."""
    if text == "off":
        return text
    address = addresses.parse(text)
    if address.name or address.kind == addresses.FD:
        raise quantities.BadValueError(text, "is not HOST:PORT, unix:PATH or off")
    is_private = address.kind == addresses.UNIX and address.mode < 0
    return address._replace(name="introspect", mode=_OWNER_ONLY if is_private else address.mode)


BUILT: tuple[Setting, ...] = (
    Setting(
        "workers",
        "N|auto",
        "1",
        "how many copies run; auto: one for each CPU this process may use (affinity and cgroup quota, rounded up)",
        read=quantities.workers,
        short="-w",
    ),
    Setting(
        "bind",
        "[NAME=]ADDR",
        "",
        "listen at HOST:PORT, :PORT (all of IPv4), [IPV6]:PORT (IPv6 only), "
        "unix:/path?mode=0660&user=U&group=G or fd:N; port 0 is any free one; may be given several times, "
        "in the variable separated by blanks",
        read=addresses.parse,
        default_words="none",
        short="-b",
        is_repeatable=True,
    ),
    Setting(
        "interface",
        "auto|callable|wsgi|asgi",
        "auto",
        "what the target is; auto: by its signature",
        read=one_of("auto", "callable", "wsgi", "asgi"),
    ),
    Setting(
        "factory",
        "",
        "off",
        "the target is called once, and returns what is to be run",
        read=quantities.switch,
    ),
    Setting(
        "server-option",
        "NAME=VALUE",
        "",
        "an option of the HTTP server's library under its own name, such as timeout_keep_alive=30 of uvicorn; "
        "server=NAME chooses the library; may be given several times, in the variable separated by blanks",
        read=quantities.assignment,
        default_words="none",
        is_repeatable=True,
        is_rare=True,
    ),
    Setting(
        "preload",
        "auto|always|never",
        "auto",
        "import the target once and fork workers from it; auto: unless it starts threads or opens connections",
        read=one_of("auto", "always", "never"),
    ),
    Setting(
        "boot-timeout",
        "DURATION",
        "60s",
        "limit for the import, and for each worker to become ready",
        read=quantities.positive_duration,
    ),
    Setting(
        "drain-delay",
        "DURATION",
        "0s",
        "keep accepting for this long after being told to stop, so that a load balancer notices first",
        read=quantities.duration,
    ),
    Setting(
        "drain-timeout",
        "DURATION",
        "25s",
        "time for what is in flight when a worker stops; then it is killed",
        read=quantities.duration,
    ),
    Setting(
        "stall-timeout",
        "DURATION|off",
        "off",
        "kill a worker that calls no worker.heartbeat() for this long, its stacks in the log; servers of web "
        "applications call it once a second",
        read=quantities.duration_or_off,
    ),
    Setting(
        "max-surge",
        "N",
        "",
        "extra workers during a reload or recycling; fewer than the workers is a rolling reload, 0 ends the old first",
        read=quantities.surge,
        default_words="as many as workers",
    ),
    Setting(
        "max-rss",
        "SIZE|off",
        "off",
        "recycle a worker that has grown beyond this, one at a time, its replacement first",
        read=quantities.size_or_off,
    ),
    Setting(
        "max-age",
        "DURATION|off",
        "off",
        "recycle a worker that is older than this (± 10 %), one at a time, its replacement first",
        read=quantities.duration_or_off,
    ),
    Setting(
        "restart",
        "always|on-failure|never",
        "",
        "what follows a worker's end",
        read=one_of("always", "on-failure", "never"),
        default_words="always if anything listens, else on-failure; one copy of a command: never",
    ),
    Setting(
        "log",
        "stdout|syslog[:URL]",
        "stdout",
        "where log lines go: syslog, syslog:unix:/path, syslog:udp://host:514, syslog:tcp://host:601",
        read=log_target,
    ),
    Setting(
        "log-format",
        "FORMAT",
        "",
        "console, logfmt or json",
        read=one_of("console", "logfmt", "json"),
        default_words="console on a terminal, else logfmt; to syslog the bare message",
    ),
    Setting(
        "log-level",
        "LEVEL",
        "info",
        "debug, info, warning or error: for prod-run's own lines, and for an app that did not set up logging",
        read=one_of("debug", "info", "warning", "error"),
        default_words="for a command warning",
    ),
    Setting(
        "introspect",
        "HOST:PORT|unix:PATH|off",
        DEFAULT_INTROSPECT,
        "where probes, metrics and the status are answered: HOST:PORT, [IPV6]:PORT or unix:/path (for this user only "
        "without ?mode=); beside TCP always a unix socket in the runtime directory, for this user only",
        read=_introspect,
        default_words="for a command off",
    ),
    Setting(
        "introspect-token-file",
        "PATH",
        "",
        "who sends the token in this file sees over TCP what only the unix socket shows otherwise; read anew each time",
        default_words="none",
        is_rare=True,
    ),
    Setting(
        "control",
        "PATH|off",
        "",
        "the unix socket for prod-ctl, for this user only",
        default_words="control.sock in the runtime directory; one copy of a command without another setting: off",
    ),
    Setting(
        "name",
        "NAME",
        "",
        "this instance's name, in titles, logs and the runtime directory; two live ones cannot share it",
        read=quantities.instance_name,
        default_words="the target's module",
    ),
    Setting(
        "chdir",
        "PATH",
        "",
        "run as if started there: the target, and every relative path of these settings, is found from it",
        default_words="the directory it was started in",
    ),
    Setting(
        "config",
        "MODULE:CLASS",
        "",
        "the application's environ-config class, if the target's annotations do not name it",
        read=quantities.target,
        default_words="from the target's annotations",
    ),
    Setting(
        "env-file",
        "PATH",
        "",
        "variables for the application, and settings at the start; the environment beats it, a later file an earlier "
        "one; may be given several times, in the variable separated by blanks",
        default_words="none",
        is_repeatable=True,
    ),
    Setting(
        "secrets-dir",
        "PATH",
        "",
        "a directory of secrets, one file each; may be given several times, in the variable separated by blanks",
        default_words="/run/secrets if present",
        is_repeatable=True,
    ),
    Setting(
        "template",
        "SRC:DEST[:MODE]",
        "",
        "a file that is rendered before the first worker starts, at each reload anew; {generation} in DEST makes one "
        "for each generation; may be given several times, in the variable separated by blanks",
        read=_template,
        default_words="none",
        is_repeatable=True,
    ),
    Setting(
        "template-check",
        "COMMAND",
        "",
        "run for each rendered file, which is {src}, before any is moved into place; no shell is used",
        read=_check_command,
        default_words="none",
        is_rare=True,
    ),
    Setting(
        "no-log-capture",
        "",
        "off",
        "workers keep prod-run's own stdout and stderr: nothing is copied, and nobody knows which worker wrote a line",
        read=quantities.switch,
        is_rare=True,
    ),
    Setting(
        "watch",
        "",
        "off",
        "reload when a secret, an env file, a template or a file of TLS changed",
        read=quantities.switch,
    ),
    Setting(
        "before",
        "COMMAND|MODULE:FUNCTION",
        "",
        "run once before the first worker of each generation, within --boot-timeout: migrations and the like; if it "
        "fails, so does the start or reload; no shell is used",
        read=_before,
        default_words="none",
        is_rare=True,
    ),
    *ingress_settings.SETTINGS,
    *service_settings.SETTINGS,
    *command_settings.SETTINGS,
)

MODES: tuple[Setting, ...] = (
    _mode("check-config", "do everything short of starting, print all that is wrong, and exit with 0 or 78"),
    _mode("without-secrets", "with --check-config: let declared secrets be missing, as they are in CI"),
    _mode("show-config", "print every setting and every variable of the target, its value and origin, and exit"),
    _mode("help-config", "print the variables of the target, or of the class of --config, and exit"),
    _mode("format", "how to print: text, json with --check-config; text, markdown, env with --help-config", "FORMAT"),
    _mode("envsubst", "be a filter like GNU envsubst; it has options of its own: prod-run --envsubst --help"),
    _mode("help", "print this and exit"),
    _mode("help-all", "print every setting, also those that are seldom needed, and exit"),
    _mode("version", "print the version and exit"),
)

TABLE: tuple[Setting, ...] = BUILT + MODES
