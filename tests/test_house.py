"""The house rules of docs/explanation/design.md, as far as a program can see them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import settings_table, signals
from tests import reference

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "launcher"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
LEAVES = {
    "launcher",
    "launcher.addresses",
    "launcher.checks",
    "launcher.cgroups",
    "launcher.command_settings",
    "launcher.errors",
    "launcher.handoff",
    "launcher.lean",
    "launcher.lean_posix",
    "launcher.metrics_directory",
    "launcher.logs.syslog_address",
    "launcher.memory",
    "launcher.prctl",
    "launcher.protocol",
    "launcher.quantities",
    "launcher.settings",
    "launcher.settings_table",
    "launcher.signals",
}
PURE = {
    "launcher.addresses",
    "launcher.appconfig.envsubst",
    "launcher.appconfig.redact",
    "launcher.appconfig.templates",
    "launcher.checks",
    "launcher.handoff",
    "launcher.lean",
    "launcher.logs.batch",
    "launcher.logs.fields",
    "launcher.logs.formats",
    "launcher.logs.raw",
    "launcher.logs.rfc5424",
    "launcher.observer.access",
    "launcher.observer.families",
    "launcher.observer.http",
    "launcher.observer.metrics",
    "launcher.observer.own",
    "launcher.observer.page.markup",
    "launcher.observer.page.sparkline",
    "launcher.observer.page.tables",
    "launcher.observer.page.words",
    "launcher.observer.probes",
    "launcher.observer.samples",
    "launcher.observer.sorting",
    "launcher.observer.state",
    "launcher.observer.tail",
    "launcher.observer.tracebacks",
    "launcher.observer.valve",
    "launcher.observer.whole_lines",
    "launcher.protocol",
    "launcher.proxy.forwarded",
    "launcher.proxy.nodes",
    "launcher.proxy.policy",
    "launcher.proxy.proxy_protocol",
    "launcher.proxy.tlvs",
    "launcher.proxy.trust",
    "launcher.proxy.walking",
    "launcher.proxy.x_forwarded",
    "launcher.supervisor.actions",
    "launcher.supervisor.checking",
    "launcher.supervisor.events",
    "launcher.supervisor.generation",
    "launcher.supervisor.history",
    "launcher.supervisor.machine",
    "launcher.supervisor.observing",
    "launcher.supervisor.overdue",
    "launcher.supervisor.pacing",
    "launcher.supervisor.policy",
    "launcher.supervisor.preparing",
    "launcher.supervisor.processes",
    "launcher.supervisor.records",
    "launcher.supervisor.restoring",
    "launcher.supervisor.signals_of_commands",
    "launcher.supervisor.staffing",
    "launcher.supervisor.upkeep",
    "launcher.supervisor.status",
    "launcher.supervisor.stopping",
    "launcher.supervisor.weighing",
}
HARMLESS_STDLIB = {"__future__", "_json", "_operator", "collections.abc", "enum", "typing"}
HARMLESS_STDLIB |= {"base64", "collections", "itertools", "json", "posixpath", "re", "shlex", "urllib.parse"}
FORBIDDEN_IN_SUPERVISOR = {
    "asyncio",
    "click",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "inspect",
    "json",
    "logging",
    "random",
    "re",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "typing",
}


def imports(name: str) -> set[str]:
    """Return every module that a module names in an import, wherever that stands in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            whole = any(f"{node.module}.{alias.name}" not in MODULES for alias in node.names)
            found |= inner | ({node.module} if whole else set())
    return found


def ours(name: str) -> set[str]:
    """Return the modules of this package among the imports of a module."""
    return {module for module in imports(name) if module.partition(".")[0] == "launcher"}


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("launcher.supervisor")])
def test_the_supervisor_imports_only_its_own_and_the_leaves(name: str) -> None:
    """The supervisor's modules import nothing of the app's side, of the command line or of third parties."""
    allowed = LEAVES | {"launcher.logs.counters", "launcher.logs.formats", "launcher.logs.nonblocking"}
    strangers = {
        module for module in ours(name) if not module.startswith("launcher.supervisor") and module not in allowed
    }
    third_party = {
        module
        for module in imports(name)
        if module.partition(".")[0] not in sys.stdlib_module_names | {"launcher", "_setproctitle"}
    }

    assert strangers == set()
    assert third_party == set()


@pytest.mark.parametrize(
    "name", [name for name in MODULES if name.startswith(("launcher.runtime", "launcher.api", "launcher.link"))]
)
def test_the_app_side_never_imports_the_supervisor(name: str) -> None:
    """Nothing of the supervisor is loaded into the app's interpreter, nor the command line."""
    assert {m for m in ours(name) if m.startswith(("launcher.supervisor", "launcher.cli", "launcher.exec"))} == set()


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("launcher.observer")])
def test_the_observer_imports_only_its_own_the_logs_and_the_leaves(name: str) -> None:
    """It shares nothing with the processes that it watches."""
    allowed = LEAVES | {"launcher.libc"}
    strangers = {m for m in ours(name) if not m.startswith(("launcher.observer", "launcher.logs")) and m not in allowed}

    assert strangers == set()


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(("launcher.logs", "launcher.proxy"))])
def test_what_several_processes_use_belongs_to_none(name: str) -> None:
    """Formats and parsers know no process."""
    folder = ".".join(name.split(".")[:2])

    assert {m for m in ours(name) if not m.startswith(folder) and m not in LEAVES} == set()


def test_before_the_exec_only_the_check_loads_the_apps_side() -> None:
    """A start must not pay for what its zygotes import."""
    importers = {
        name for name in MODULES if name.count(".") == 1 and any(m.startswith("launcher.runtime.") for m in ours(name))
    }

    assert importers == {"launcher.api", "launcher.check", "launcher.check_places"}


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("launcher.appconfig")])
def test_configuration_knows_nothing_of_processes(name: str) -> None:
    """What an app declares is loaded by a zygote, by `--check-config` and by a test alike."""
    strangers = {m for m in ours(name) if not m.startswith("launcher.appconfig") and m not in LEAVES}
    outside = {m.partition(".")[0] for m in imports(name)} - sys.stdlib_module_names - {"launcher"}

    assert strangers == set()
    assert outside <= {"attrs", "environ", "jinja2"}


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_import_only_pure_modules_and_leaves(name: str) -> None:
    """A pure module cannot wait or act: it has nothing to do it with."""
    impure = {module for module in ours(name) if module not in PURE | LEAVES}
    outside = {module for module in imports(name) if module.partition(".")[0] != "launcher"} - HARMLESS_STDLIB

    assert impure == set()
    assert outside == set()


def test_nobody_imports_the_command_line() -> None:
    """`cli` is where everything begins; nothing leads back to it."""
    importers = {name for name in MODULES if {"launcher.cli", "launcher.ctl"} & ours(name)} - {"launcher.__main__"}

    assert importers == set()


def test_the_supervisor_loads_no_third_party_module_but_setproctitle() -> None:
    """What is in sys.modules after `import launcher.supervisor.main` is the standard library's lean part."""
    code = (
        "import json, sys; before = set(sys.modules); sys.path.append(sys.argv[1]);"
        "import launcher.supervisor.main; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    argv = [sys.executable, "-I", "-S", "-c", code, str(ROOT)]
    loaded = set(json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout))
    third_party = {m for m in loaded if m.partition(".")[0] not in sys.stdlib_module_names | {"launcher"}}

    assert third_party == set()
    assert loaded & FORBIDDEN_IN_SUPERVISOR == set()


def test_importing_launcher_costs_the_standard_library_only() -> None:
    """An app that says `from launcher import Worker` loads nothing of third parties."""
    code = "import sys; before = set(sys.modules); sys.path.append(sys.argv[1]); from launcher import Worker; print(*set(sys.modules) - before)"
    argv = [sys.executable, "-I", "-S", "-c", code, str(ROOT)]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()

    assert {m for m in loaded if m.partition(".")[0] not in sys.stdlib_module_names | {"launcher"}} == set()


@pytest.mark.parametrize("name", [name for name, path in MODULES.items() if path.read_text().strip()])
def test_every_module_says_what_it_owns(name: str) -> None:
    """A module opens with what it is for; the first question of a reader is answered there."""
    docstring = ast.get_docstring(ast.parse(MODULES[name].read_text()))

    assert docstring


@pytest.mark.parametrize("path", reference.PAGES)
def test_printed_pages_equal_the_code(path: str) -> None:
    """Settings, signals and exit codes in the docs are what the code says (`python -m tests.reference`)."""
    assert (ROOT / path).read_text() == reference.PAGES[path]()


def test_each_operator_signal_is_named_in_one_table() -> None:
    """`grep` for a signal that an operator sends leads to signals.py, and to one row of it."""
    numbers = [row.signal for row in signals.TABLE]

    assert len(set(numbers)) == len(numbers)
    for number in ("SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR2"):
        naming = {
            name
            for name, path in MODULES.items()
            if any(
                isinstance(node, ast.Attribute) and node.attr == number
                for node in ast.walk(ast.parse(path.read_text()))
            )
        }
        assert naming <= {
            *("launcher.signals", "launcher.supervisor.terminal", "launcher.top"),
            *("launcher.logs.nonblocking", "launcher.observer.resolve"),
        }


def test_help_stays_short() -> None:
    """`--help` shows at most 25 settings: one more needs another one to go."""
    assert sum(not setting.is_rare for setting in settings_table.BUILT) <= 25


def test_no_module_is_called_after_nothing() -> None:
    """Names say what is inside."""
    empty_words = {"manager", "handler", "utils", "util", "helpers", "helper", "common", "misc"}

    assert {name for name in MODULES if name.rpartition(".")[2] in empty_words} == set()
