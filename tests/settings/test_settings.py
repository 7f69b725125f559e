"""What becomes of flags and variables."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given, strategies

from launcher import command_settings, help_text, quantities
from launcher.cpus import count
from launcher.errors import ConfigError, Exit, UsageError
from launcher.quantities import BadValueError
from launcher.settings import Machine, Row, Settings, is_service_link, resolve
from launcher.settings_table import BUILT, TABLE

ROOT = Path(__file__).parents[2]
MACHINE = Machine(lambda: 6)
WORDS = ("shop.web:main", "--verbose")


def settled(
    environ: dict[str, str] | None = None, machine: Machine = MACHINE, words: tuple[str, ...] = WORDS, **flags: str
) -> Settings:
    """Resolve flags given as drain_timeout="30s"."""
    written = {name.replace("_", "-"): (text,) for name, text in flags.items()}
    return resolve(words, written, environ or {}, machine)


def origin(settings: Settings, name: str) -> str:
    """Say where a setting's value came from."""
    return next(row.origin for row in settings.rows if row.name == name)


def test_defaults_are_those_of_the_table() -> None:
    """Without a flag or a variable, each setting has the value that the help promises."""
    found = settled()

    assert (found.workers, found.bind, found.interface, found.preload) == (1, (), "auto", "auto")
    assert (found.boot_timeout, found.drain_delay, found.drain_timeout) == (60.0, 0.0, 25.0)
    assert (found.max_surge, found.restart, found.log_level) == (-1, "on-failure", "info")
    assert (found.name, found.is_name_explicit, found.chdir) == ("shop.web", False, "")
    assert (found.target, found.arguments) == ("shop.web:main", ("--verbose",))


def test_a_flag_beats_a_variable_and_a_variable_the_default() -> None:
    """The nearest source wins, and each value says where it came from."""
    found = settled({"PROD_RUN_WORKERS": "3", "PROD_RUN_DRAIN_TIMEOUT": "5m"}, workers="4")

    assert (found.workers, origin(found, "workers")) == (4, "flag --workers")
    assert (found.drain_timeout, origin(found, "drain-timeout")) == (300.0, "environment PROD_RUN_DRAIN_TIMEOUT")
    assert origin(found, "preload") == "default"
    assert origin(found, "name") == "the target"


def test_an_empty_variable_is_unset() -> None:
    """`PROD_RUN_WORKERS=${WORKERS:-}` in a compose file is not an error."""
    assert origin(settled({"PROD_RUN_WORKERS": "", "PROD_RUN_BIND": ""}), "workers") == "default"


def test_the_last_of_several_flags_wins_but_addresses_add_up() -> None:
    """A wrapper script can append a flag to override; --bind collects."""
    flags = {"workers": ("2", "3"), "bind": (":80", "web=:81", ":82")}
    found = resolve(WORDS, flags, {}, MACHINE)

    assert found.workers == 3
    assert [address.name for address in found.bind] == ["default", "web", "default2"]


def test_addresses_in_a_variable_are_separated_by_blanks() -> None:
    """PROD_RUN_BIND can hold several."""
    found = settled({"PROD_RUN_BIND": "web=:80  admin=127.0.0.1:81"})

    assert [(address.name, address.port) for address in found.bind] == [("web", 80), ("admin", 81)]


def test_auto_workers_are_the_cpus_and_shown_as_such() -> None:
    """`--workers auto` asks the machine."""
    found = settled(workers="auto")

    assert found.workers == 6
    assert found.rows[0] == Row("workers", "6 (auto)", "flag --workers")


@pytest.mark.parametrize(
    ("machine", "bind", "restart"),
    [
        (MACHINE, "", "on-failure"),
        (MACHINE, ":80", "always"),
        (Machine(lambda: 1, inherits_listeners=True), "", "always"),
    ],
)
def test_servers_are_restarted_always_and_callables_on_failure(machine: Machine, bind: str, restart: str) -> None:
    """What a worker's end means depends on whether anything listens."""
    assert settled(machine=machine, **({"bind": bind} if bind else {})).restart == restart


def test_an_explicit_restart_is_kept() -> None:
    """The rule for the default does not touch what was asked for."""
    assert settled(bind=":80", restart="never").restart == "never"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("workers", "0", "'0' is out of range. Write a number of workers from 1 to 4096"),
        ("workers", "-3", "'-3' is negative"),
        ("workers", "two", "'two' is not a whole number. Write a number from 1 to 4096, or auto"),
        ("workers", "9" * 5000, "is out of range"),
        ("workers", "²", "is not a whole number"),
        ("max-surge", "-1", "'-1' is negative. Write a number of extra workers from 0 to 4096"),
        ("drain-timeout", "30", "'30' has no unit. Write 30s for seconds, or 30m for minutes"),
        ("drain-timeout", "-5s", "'-5s' is negative. Write 500ms, 30s, 5m or 1h"),
        ("drain-timeout", "nan", "'nan' is not a duration"),
        ("drain-timeout", "nans", "'nans' is not a duration"),
        ("drain-timeout", "infs", "'infs' is not a duration"),
        ("drain-timeout", "1e3s", "'1e3s' is not a duration"),
        ("drain-timeout", "", "'' is not a duration"),
        ("drain-timeout", "9000h", "'9000h' is longer than a year"),
        ("boot-timeout", "0", "'0' would give no time at all"),
        ("preload", "sometimes", "'sometimes' is not one of the choices. Write auto, always or never"),
        ("interface", "cgi", "'cgi' is not one of the choices. Write auto, callable, wsgi or asgi"),
        ("name", "a/b", "'a/b' is not a name. Write 1 to 48 letters"),
        ("name", "..", "'..' is not a name"),
        ("name", "x" * 49, "is not a name"),
        ("bind", "localhost", "'localhost' is not an address. Write HOST:PORT"),
        ("stall-timeout", "soon", "'soon' is not a duration"),
        ("watch", "perhaps", "'perhaps' is neither on nor off. Write on or off"),
        ("introspect", "8900", "'8900' is not an address. Write :8900"),
        ("introspect", "fd:3", "'fd:3' is not HOST:PORT, unix:PATH or off"),
        ("introspect", "web=:8900", "'web=:8900' is not HOST:PORT, unix:PATH or off"),
        ("log", "syslog:ftp://x", "is not a syslog address"),
    ],
)
def test_a_bad_value_is_a_clear_sentence_wherever_it_came_from(name: str, text: str, sentence: str) -> None:
    """The same sentence names the flag (exit 2) or the variable (exit 78)."""
    with pytest.raises(UsageError) as by_flag:
        resolve(WORDS, {name: (text,)}, {}, MACHINE)

    assert f"--{name}: " in str(by_flag.value)
    assert sentence in str(by_flag.value)
    assert by_flag.value.exit_code == Exit.USAGE
    if text:
        variable = f"PROD_RUN_{name.upper().replace('-', '_')}"
        with pytest.raises(ConfigError) as by_variable:
            resolve(WORDS, {}, {variable: text}, MACHINE)

        assert f"{variable}: " in str(by_variable.value)
        assert sentence in str(by_variable.value)
        assert by_variable.value.exit_code == Exit.CONFIG


@pytest.mark.parametrize(
    ("name", "text"),
    [("introspect", "off"), ("log", "stdout"), ("stall-timeout", "off"), ("max-rss", "off"), ("max-age", "off"),
     ("control", "off")],
)  # fmt: skip
def test_a_value_that_is_true_already_is_accepted(name: str, text: str) -> None:
    """A configuration that turns off what is not built still starts."""
    resolve(WORDS, {name: (text,)}, {f"PROD_RUN_{name.upper().replace('-', '_')}": text}, MACHINE)


@pytest.mark.parametrize("text", ["off", "0", "no", "false"])
def test_a_switch_can_be_off_by_variable(text: str) -> None:
    """PROD_RUN_WATCH=off says what is true."""
    settled({"PROD_RUN_WATCH": text, "PROD_RUN_DAEMON": text})


def test_all_problems_are_reported_at_once() -> None:
    """The command line's and the environment's, in one go; the command line decides about the exit code."""
    with pytest.raises(UsageError) as caught:
        resolve(
            ("shop",),
            {"workers": ("-3",), "bind": ("nowhere",), "umask": ("rw",)},
            {"PROD_RUN_BOOT_TIMEOUT": "soon", "PROD_RUN_WORKRES": "4"},
            MACHINE,
        )

    names = [problem.name for problem in caught.value.problems]
    assert names == [
        "--workers", "--bind", "--umask", "MODULE:ATTRIBUTE", "PROD_RUN_BOOT_TIMEOUT", "PROD_RUN_WORKRES",
    ]  # fmt: skip


def test_a_bad_variable_is_reported_even_where_a_flag_overrides_it() -> None:
    """It would otherwise bite on the day the flag goes."""
    with pytest.raises(ConfigError, match="PROD_RUN_WORKERS: 'many' is not a whole number"):
        settled({"PROD_RUN_WORKERS": "many"}, workers="2")


def test_an_unknown_variable_is_an_error_with_a_suggestion_and_without_its_value() -> None:
    """A typing mistake is found before it is missed; the value might be a secret."""
    with pytest.raises(ConfigError) as caught:
        settled({"PROD_RUN_DRAIN_TIMOUT": "hunter2"})

    text = str(caught.value)
    assert "PROD_RUN_DRAIN_TIMOUT: there is no such setting. Did you mean PROD_RUN_DRAIN_TIMEOUT?" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("name", ["PROD_RUN_SHOW_CONFIG", "PROD_RUN_HELP", "PROD_RUN_CHECK_CONFIG"])
def test_what_is_not_a_setting_has_no_variable(name: str) -> None:
    """No variable can turn a service into a program that prints and ends."""
    with pytest.raises(ConfigError, match="there is no such setting"):
        settled({name: "on"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROD_RUN_SERVICE_HOST", "10.0.0.1"),
        ("PROD_RUN_SERVICE_PORT", "80"),
        ("PROD_RUN_SERVICE_PORT_HTTP", "80"),
        ("PROD_RUN_PORT", "tcp://10.0.0.1:80"),
        ("PROD_RUN_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("PROD_RUN_PORT_80_TCP_PROTO", "tcp"),
        ("PROD_RUN_PORT_80_TCP_PORT", "80"),
        ("PROD_RUN_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("PROD_RUN_API_PORT_53_UDP_ADDR", "10.0.0.1"),
    ],
)
def test_service_links_of_kubernetes_are_no_mistakes(name: str, value: str) -> None:
    """A Service that is called prod-run puts these into every pod of its namespace."""
    assert is_service_link(name, value)

    settled({name: value, "PROD_RUN_TEMPLATE_NGINX": "/run/x"})


@pytest.mark.parametrize(
    ("name", "value"), [("PROD_RUN_PORT", "8000"), ("PROD_RUN_PORT_X_TCP", "1"), ("PROD_RUN_PROT", "tcp://1")]
)
def test_what_only_looks_like_a_service_link_is_reported(name: str, value: str) -> None:
    """PROD_RUN_PORT=8000 was meant to do something."""
    with pytest.raises(ConfigError, match=name):
        settled({name: value})


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("shop", "Say what in the module is to be run, for example shop:main"),
        ("shop/web.py", "Name the module as `import` does, not its file: shop.web:main"),
        ("./shop/web.py:app", "not its file: shop.web:app"),
        ("shop.wsgi", "for example shop.wsgi:application"),
        ("shop:create_app()", "Name the callable without parentheses, and if it makes the application, add --factory"),
        ("shop:create_app('prod')", "Name the callable without parentheses"),
        ("shop:", "Write it like shop.web:main"),
        (":main", "Write it like shop.web:main"),
        ("shop..web:main", "Write it like shop.web:main"),
        ("my-app:main", "Write it like shop.web:main"),
        ("", "Write it like shop.web:main"),
    ],
)
def test_a_bad_target_says_what_a_good_one_is(text: str, advice: str) -> None:
    """The most frequent mistakes have their own sentence."""
    with pytest.raises(UsageError) as caught:
        settled(words=(text,))

    assert f"MODULE:ATTRIBUTE: {text!r} is not MODULE:ATTRIBUTE. " in str(caught.value)
    assert advice in str(caught.value)


def test_a_missing_target_is_an_error_but_not_for_show_config() -> None:
    """`prod-run --show-config` explains an environment alone."""
    with pytest.raises(UsageError, match="MODULE:ATTRIBUTE: missing"):
        settled(words=())

    assert settled(words=(), show_config="on").name == "prod-run"


@pytest.mark.parametrize(
    ("target", "name"), [("größe.web:main", "gr--e.web"), ("a" * 60 + ":main", "a" * 48), ("shop:app.main", "shop")]
)
def test_a_default_name_is_always_a_valid_one(target: str, name: str) -> None:
    """It becomes a directory."""
    assert quantities.instance_name(settled(words=(target,)).name) == name


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30.0), ("5m", 300.0), ("1h", 3600.0), ("1.5s", 1.5), ("0", 0.0)]
)
def test_durations_are_read_into_seconds(text: str, seconds: float) -> None:
    """All units, and the one number that needs none."""
    assert quantities.duration(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("512M", 512 * 2**20), ("1G", 2**30), ("1.5K", 1536)])
def test_sizes_are_read_into_bytes(text: str, size: int) -> None:
    """Powers of 1024."""
    assert quantities.size(text) == size


@pytest.mark.parametrize("text", ["512", "-1G", "0M", "nanG", "G", "1GB"])
def test_a_bad_size_is_refused(text: str) -> None:
    """A size without a unit is as unclear as a duration without one."""
    with pytest.raises(BadValueError, match="is not a size"):
        quantities.size(text)


@given(strategies.text(max_size=12))
def test_no_text_makes_a_duration_that_the_machine_cannot_use(text: str) -> None:
    """Every text is either refused with a sentence or a finite number of seconds."""
    try:
        seconds = quantities.duration(text)
    except BadValueError:
        return

    assert math.isfinite(seconds)
    assert 0 <= seconds <= quantities.LONGEST_DURATION


def test_help_shows_at_most_25_settings() -> None:
    """Few knobs; who needs the others asks for all."""
    text = help_text.short()

    assert len([setting for setting in BUILT if not setting.is_rare]) <= 25
    assert all((f"  {setting.flag} " in text) is not setting.is_rare for setting in BUILT if not setting.short)


def test_every_setting_has_one_name() -> None:
    """No name is there twice, and a variable's name follows from the flag's."""
    assert len({setting.name for setting in TABLE}) == len(TABLE)
    assert {setting.variable for setting in TABLE if setting.name == "drain-timeout"} == {"PROD_RUN_DRAIN_TIMEOUT"}


def test_every_default_in_the_table_is_one_that_its_reader_takes() -> None:
    """The help cannot promise a default that would be refused."""
    for setting in BUILT:
        if setting.default:
            setting.read(setting.default)


def test_lines_of_help_are_not_wider_than_asked() -> None:
    """A flag that is too long for its column gets its own line."""
    for line in help_text.full(100).partition("Options:")[2].partition("Each setting")[0].splitlines():
        assert len(line) <= 100


def test_show_config_is_aligned_and_only_coloured_on_request() -> None:
    """Three columns; no escape sequence in a file."""
    rows = settled(workers="3").rows

    plain = help_text.show_config(rows, is_coloured=False)
    assert plain.splitlines()[0].split() == ["workers", "3", "flag", "--workers"]
    assert len({line.rindex(row.origin) for line, row in zip(plain.splitlines(), rows, strict=True)}) == 1
    assert "\033" not in plain
    assert "\033[1mworkers" in help_text.show_config(rows, is_coloured=True)


def test_the_reference_has_a_row_for_every_setting() -> None:
    """The docs are printed from the table."""
    text = help_text.reference()

    assert all(f"{setting.flag}" in text for setting in TABLE)
    assert text.count("\n") == len(TABLE) + 1


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 99),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 99),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/host/only\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            99,
        ),
    ],
)
def test_cpus_are_limited_by_the_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cpus: int
) -> None:
    """Both versions of cgroups, also a limit that stands higher up, and a container's foreign path."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(99))
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert count(str(tmp_path)) == cpus


def test_help_names_the_defaults_of_commands() -> None:
    """They are other ones than a target's, wherever they are set."""
    shown = {setting.name: setting.shown_default for setting in BUILT}
    for workers, listens in ((1, False), (2, False), (1, True)):
        for name, (value, *_) in command_settings.defaults("nginx", workers, listens=listens).items():
            assert name == "name" or str(value) in shown[name]
    assert shown["control"].endswith("off")


def test_every_reason_of_a_stop_is_told_to_authors() -> None:
    """In the reference and in the docstring: an app may act upon it."""
    source = (ROOT / "launcher/supervisor/staffing.py").read_text()
    reasons = set(re.findall(r'_drain\(.*, "([a-z]+)", now\)', source))

    assert reasons == {"stop", "reload", "scale", "recycle", "rejected"}
    for page in ("docs/reference/worker.md", "launcher/link.py"):
        (line,) = [line for line in (ROOT / page).read_text().splitlines() if "`recycle`" in line]
        assert [reason for reason in reasons if f"`{reason}`" not in line] == []
