"""
The program `prod-run`: command line → settings → what was asked for.

Owns the parsing (with click) and the printing; `exec` does the rest.
Must never print a traceback for what a user did, and never import the target.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` loads enum: 4 ms in which Ctrl-C would be a traceback
import os
import sys

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    import click

    from launcher.check import Asked
    from launcher.errors import LauncherError, Problem
    from launcher.setting import Setting
    from launcher.settings import Settings

COMMAND_MARK = "--"

# What can be asked for instead of a start, and how each can be printed, the default first.
FORMATS: dict[str, tuple[str, ...]] = {
    "help-all": ("text",),
    "help": ("text",),
    "version": ("text",),
    "check-config": ("text", "json"),
    "show-config": ("text",),
    "help-config": ("text", "markdown", "env"),
}
_ABOUT_ITSELF = ("help-all", "help", "version")
_FILTER = "--envsubst"


class _Printed(Exception):  # noqa: N818 - not an error
    """Something was asked for and printed: nothing is to be started; `args[0]` is the exit code."""


def main() -> NoReturn:
    """Run `prod-run`; comes back only as an exit."""
    if sys.argv[1:2] == [_FILTER]:
        _filter(sys.argv[2:])
    # Before anything slow is imported: a signal that comes now waits for the supervisor, which knows what it means.
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    _run_bare(sys.argv[1:], mask)
    from launcher import command, kernel  # noqa: PLC0415
    from launcher import exec as launching  # noqa: PLC0415
    from launcher.errors import Exit, LauncherError, Problem, SystemRefusedError  # noqa: PLC0415

    try:
        closed = kernel.ensure_stdio()
        chosen = understand(sys.argv[1:])
        how = command.caller(mask, closed)
        if chosen.service.is_daemon:
            from launcher import daemon  # noqa: PLC0415

            daemon.launch(chosen, os.environ, tell, how)
        launching.launch(chosen, os.environ, tell, how)
    except _Printed as printed:
        code = printed.args[0]
    except KeyboardInterrupt:
        code = 128 + _signal.SIGINT
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        os.kill(os.getpid(), _signal.SIGINT)
    except LauncherError as error:
        tell(str(error), severity=3)
        code = error.exit_code
    except OSError as error:
        tell(str(SystemRefusedError(Problem(error.filename or "", error.strerror or str(error)))), severity=3)
        code = Exit.OS_ERROR
    _flush()
    os._exit(code)  # a target that was imported may have left threads, which would keep us


def _run_bare(words: list[str], mask: set[int]) -> None:
    """Run a command that nothing else was asked for: click and the settings cost ten times what that needs."""
    if words[:1] != [COMMAND_MARK]:
        return
    from launcher import command  # noqa: PLC0415

    if command.is_bare(words, os.environ):
        try:
            command.run_alone(command.bare(words), command.caller(mask))
        except OSError:
            pass  # the way with settings finds the words for it
        except _refusal() as error:
            tell(str(error), severity=3)
            os._exit(error.exit_code)


def _refusal() -> type[LauncherError]:
    """Return the base of our errors, which is loaded only when there is one."""
    from launcher.errors import LauncherError  # noqa: PLC0415

    return LauncherError


def understand(argv: list[str]) -> Settings:
    """
    Turn the words after `prod-run` into settings, or print what they ask for.

    Raises:
        UsageError, ConfigError: some of it is wrong.
    """
    from launcher import cpus, settings  # noqa: PLC0415
    from launcher.supervisor import listeners  # noqa: PLC0415

    words, flags, problems = parse(argv)
    mode = "" if problems else _asked(flags)
    if mode in _ABOUT_ITSELF:
        _print(_about(mode))
    machine = settings.Machine(cpus.count, bool(listeners.activated(os.environ, os.getpid())))
    environ, places = _environment(flags)
    if mode:
        from launcher.check import Asked  # noqa: PLC0415

        _examine(mode, Asked(words, flags, environ, places, machine))
    return settings.resolve(words, flags, environ, machine, problems, places)


def _environment(flags: Mapping[str, tuple[str, ...]]) -> tuple[Mapping[str, str], Mapping[str, str]]:
    """
    Lay the environment over env files, which may hold settings too.

    Returns:
        The variables, and for those of files their places.  What is wrong with a file is said by who reads it
        for the target.
    """
    from launcher import settings  # noqa: PLC0415

    paths = settings.given_texts("env-file", flags, os.environ)
    if not paths:
        return os.environ, {}
    from launcher.appconfig import env_file  # noqa: PLC0415

    folder = "".join(settings.given_texts("chdir", flags, os.environ)[-1:])
    read = env_file.read(tuple(os.path.join(folder, path) for path in paths), os.environ)
    return read.environ, read.origins


def _asked(flags: Mapping[str, tuple[str, ...]]) -> str:
    """
    Say what is asked for instead of a start; empty: nothing.

    Raises:
        UsageError: it makes no sense.
    """
    from launcher.errors import Problem, UsageError  # noqa: PLC0415

    asked = [name for name in FORMATS if name in flags]
    if asked and asked[0] in _ABOUT_ITSELF:
        return asked[0]
    problems = []
    if "envsubst" in flags:
        problems.append(Problem(_FILTER, "must be the first word", f"Write prod-run {_FILTER} --help"))
    if len(asked) > 1:
        problems.append(Problem(f"--{asked[1]}", f"does not go with --{asked[0]}", "Ask for one of them"))
    if "without-secrets" in flags and "check-config" not in asked:
        problems.append(Problem("--without-secrets", "only goes with --check-config"))
    known = FORMATS[asked[0]] if asked else ()
    if "format" in flags and (flags["format"][-1] not in known or len(known) == 1):
        forms = [f"{', '.join(forms)} with --{name}" for name, forms in FORMATS.items() if len(forms) > 1]
        problems.append(Problem("--format", f"{flags['format'][-1]!r} is no format here", f"Write {'; '.join(forms)}"))
    if problems:
        raise UsageError(*problems)
    return asked[0] if asked else ""


def _about(asked: str) -> str:
    if asked == "version":
        return _version()
    from launcher import help_text  # noqa: PLC0415

    return help_text.full() if asked == "help-all" else help_text.short()


def _examine(mode: str, asked: Asked) -> NoReturn:
    """Print what can be said of the target and its configuration without a start."""
    from launcher import check, check_report  # noqa: PLC0415

    is_coloured = os.isatty(1) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    form = asked.flags.get("format", FORMATS[mode][:1])[-1]
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _signal.valid_signals())  # nothing is handed over to anybody
    output = check.step_aside()
    if mode == "help-config":
        _print(check.describe(asked, form).rstrip("\n"), output)
    if mode == "show-config":
        _print(check_report.table(check.show(asked), is_coloured=is_coloured), output)
    report = check.judge(asked)
    written = check_report.as_json(report) if form == "json" else check_report.text(report, is_coloured=is_coloured)
    _flush()
    _print(written, output, check.exit_code(report))


def _filter(words: list[str]) -> NoReturn:
    """Be the filter of `--envsubst`; it has a grammar of its own, and ends by a signal as other filters do."""
    from launcher.appconfig.envsubst_filter import run  # noqa: PLC0415

    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    os._exit(run(words, os.environb, 0, 1, 2))


def parse(argv: list[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]], tuple[Problem, ...]]:
    """Sort the words: the target and its arguments, for each setting what was written, and what is wrong."""
    import click  # noqa: PLC0415 - 25 ms, which must not delay the blocking of signals

    from launcher.settings_table import TABLE  # noqa: PLC0415

    mark = _position_of_mark(argv)
    words = tuple(argv[mark:]) if mark >= 0 else ()  # with the mark: so it is told from a Python target
    argv = argv[:mark] if words else argv
    command = click.Command(
        "prod-run",
        params=[
            *(_option(setting) for setting in TABLE),
            # What follows the target is the target's, even if it looks like an option.
            click.Argument(["words"], nargs=-1, type=click.UNPROCESSED),
        ],
        context_settings={"allow_interspersed_args": False},
        add_help_option=False,
    )
    try:
        params = command.make_context("prod-run", list(argv)).params
    except click.UsageError as error:
        return words, {}, (_explained(error),)
    flags = {setting.name: _written(params[_parameter(setting)]) for setting in TABLE}
    return words or tuple(params["words"]), {name: texts for name, texts in flags.items() if texts}, ()


def tell(text: str, severity: int = 4) -> None:
    """Write a line (or a list) for people to stderr; a stderr that is gone is no reason to fail."""
    from launcher import exec as launching  # noqa: PLC0415

    try:
        # sd-daemon(3): the journal takes each line by itself, and one without a mark for level info.
        mark = f"<{severity}>" if launching.is_journal(2, os.environ.get("JOURNAL_STREAM", "")) else ""
        sys.stderr.write("".join(f"{mark}{line}\n" for line in f"prod-run: {text}".split("\n")))
        sys.stderr.flush()
    except (OSError, AttributeError):
        pass


def _print(text: str, output: int = 1, code: int = 0) -> NoReturn:
    # A path may hold bytes that are no text in this locale.
    encoding = sys.__stdout__.encoding if sys.__stdout__ else "utf-8"  # there is none if the caller had closed it
    rest = f"{text}\n".encode(encoding, "backslashreplace")
    try:
        while rest:
            rest = rest[os.write(output, rest) :]
    except BrokenPipeError:
        pass  # `prod-run --help | head -1` is no failure
    raise _Printed(code)


def _flush() -> None:
    """Write what the target printed while it was imported."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed or replaced by the target, or nobody reads it


def _version() -> str:
    from launcher import __version__  # noqa: PLC0415

    return f"prod-run {__version__} (Python {'.'.join(map(str, sys.version_info[:3]))})"


def _position_of_mark(argv: list[str]) -> int:
    """
    Find a `--` before the target; -1 if there is none.

    click drops it: to click `--workers 2 -- sh` and `--workers 2 sh` are the same.
    """
    from launcher.settings_table import TABLE  # noqa: PLC0415

    with_value = {name for setting in TABLE if setting.form for name in (setting.flag, setting.short)}
    words = iter(enumerate(argv))
    for index, word in words:
        if word == COMMAND_MARK:
            return index
        if not word.startswith("-"):
            break
        if word in with_value:
            next(words, None)
    return -1


def _parameter(setting: Setting) -> str:
    return setting.name.replace("-", "_")


def _option(setting: Setting) -> click.Option:
    import click  # noqa: PLC0415

    names = [_parameter(setting), setting.flag, *([setting.short] if setting.short else [])]
    if setting.form:
        # Every one that was written, so that the rule for several is ours.
        return click.Option(names, multiple=True, type=click.UNPROCESSED)
    return click.Option(names, is_flag=True)


def _written(value: object) -> tuple[str, ...]:
    if isinstance(value, tuple):
        return tuple(map(str, value))
    return ("on",) if value else ()


def _explained(error: click.UsageError) -> Problem:
    from click import BadOptionUsage, NoSuchOption  # noqa: PLC0415

    from launcher.errors import Problem  # noqa: PLC0415
    from launcher.settings import suggestion  # noqa: PLC0415
    from launcher.settings_table import TABLE  # noqa: PLC0415

    if isinstance(error, NoSuchOption):
        near = suggestion(error.option_name, tuple(setting.flag for setting in TABLE))
        return Problem(error.option_name, "there is no such option", near or "See `prod-run --help`")
    if isinstance(error, BadOptionUsage):
        setting = next((setting for setting in TABLE if error.option_name in {setting.flag, setting.short}), None)
        if setting and setting.form:
            return Problem(setting.flag, "its value is missing", f"Write {setting.flag} {setting.form}")
        return Problem(error.option_name, "it takes no value", "Write it alone")
    return Problem("", error.format_message())
