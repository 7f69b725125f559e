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
    from typing import NoReturn

    import click

    from launcher.errors import Problem
    from launcher.settings import Settings
    from launcher.settings_table import Setting

COMMAND_MARK = "--"


class _Printed(Exception):  # noqa: N818 - not an error
    """Something was asked for and printed: nothing is to be started."""


def main() -> NoReturn:
    """Run `prod-run`; comes back only as an exit."""
    # Before anything slow is imported: a signal that comes now waits for the supervisor, which knows what it means.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    from launcher import exec as launching  # noqa: PLC0415
    from launcher.errors import Exit, LauncherError, Problem, SystemRefusedError  # noqa: PLC0415

    try:
        launching.ensure_stdio()
        launching.launch(understand(sys.argv[1:]), os.environ, tell)
    except _Printed:
        code = Exit.DONE
    except LauncherError as error:
        tell(str(error))
        code = error.exit_code
    except OSError as error:
        tell(str(SystemRefusedError(Problem(error.filename or "", error.strerror or str(error)))))
        code = Exit.OS_ERROR
    sys.exit(code)


def understand(argv: list[str]) -> Settings:
    """
    Turn the words after `prod-run` into settings, or print what they ask for.

    Raises:
        UsageError, ConfigError: some of it is wrong.
    """
    from launcher import cpus, settings  # noqa: PLC0415
    from launcher.supervisor import listeners  # noqa: PLC0415

    words, flags, problems = parse(argv)
    if not problems and not {"help", "help-all", "version"}.isdisjoint(flags):
        _answer(flags)
    machine = settings.Machine(cpus.count, bool(listeners.activated(os.environ, os.getpid())))
    resolved = settings.resolve(words, flags, os.environ, machine, problems)
    if "show-config" in flags:
        from launcher import help_text  # noqa: PLC0415

        is_coloured = os.isatty(1) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        _print(help_text.show_config(resolved.rows, is_coloured=is_coloured))
    return resolved


def _answer(flags: dict[str, tuple[str, ...]]) -> None:
    from launcher import help_text  # noqa: PLC0415

    if "help-all" in flags:
        _print(help_text.full())
    if "help" in flags:
        _print(help_text.short())
    if "version" in flags:
        _print(_version())


def parse(argv: list[str]) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]], tuple[Problem, ...]]:
    """Sort the words: the target and its arguments, for each setting what was written, and what is wrong."""
    import click  # noqa: PLC0415 - 25 ms, which must not delay the blocking of signals

    from launcher.errors import Problem  # noqa: PLC0415
    from launcher.settings_table import TABLE  # noqa: PLC0415

    mark = _position_of_mark(argv)
    problems: tuple[Problem, ...] = ()
    if mark >= 0:
        argv = argv[:mark]
        problems = (Problem("-- COMMAND", "not in this version", "Name a Python target, such as shop.web:main"),)
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
        return (), {}, (*problems, _explained(error))
    flags = {setting.name: _written(params[_parameter(setting)]) for setting in TABLE}
    return tuple(params["words"]), {name: texts for name, texts in flags.items() if texts}, problems


def tell(text: str) -> None:
    """Write a line (or a list) for people to stderr; a stderr that is gone is no reason to fail."""
    try:
        sys.stderr.write(f"prod-run: {text}\n")
        sys.stderr.flush()
    except (OSError, AttributeError):
        pass


def _print(text: str) -> NoReturn:
    if sys.stdout is None:  # the caller had closed it
        raise _Printed
    try:
        # A path may hold bytes that are no text in this locale.
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        # So that the interpreter has nothing to complain about at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):  # `prod-run --help | head -1` is no failure
            raise
    raise _Printed


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
