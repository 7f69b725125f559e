"""
What people write for a setting, turned into values.

Owns the reading of durations, sizes, whole numbers, names and targets, and the sentence for each bad one.
Must never look at the machine or know which setting it reads: text in, value out.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable

# The longest unit first: "ms" ends in "s".
_SECONDS_PER_UNIT = (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0))
_BYTES_PER_UNIT = (("K", 1024), ("M", 1024**2), ("G", 1024**3), ("T", 1024**4))

LONGEST_DURATION = 365 * 24 * 3600.0  # seconds; epoll_wait(2) takes its timeout as an int of milliseconds
MOST_WORKERS = 4096
LONGEST_NAME = 48

NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_DIGITS = frozenset("0123456789")  # str.isdigit() also takes '²' and '٣'

ON = ("on", "yes", "true", "1")
OFF = ("off", "no", "false", "0")


class BadValueError(ValueError):
    """
    A text is not what a setting needs.

    `reason` is the sentence that says so, with the text in it; `remedy` what to write instead.
    """

    def __init__(self, text: str, what: str, remedy: str = "") -> None:
        """Make the sentence: the text, quoted, and `what` is wrong with it."""
        self.reason = f"{text!r} {what}"
        self.remedy = remedy
        super().__init__(self.reason)


def plain(text: str) -> str:
    """Take a text as it is."""
    return text


def duration(text: str) -> float:
    """
    Read `500ms`, `30s`, `5m` or `1h` into seconds.

    A number without a unit is refused, because half of the world's tools would read it as milliseconds;
    only `0` means the same in every unit.
    """
    number, factor = _split(text, _SECONDS_PER_UNIT)
    if factor is None and _is_decimal(text):
        if float(text) == 0:
            return 0.0
        raise BadValueError(text, "has no unit", f"Write {text}s for seconds, or {text}m for minutes")
    if factor is None or not _is_decimal(number):
        negative = text.startswith("-") and _is_decimal(_split(text[1:], _SECONDS_PER_UNIT)[0])
        reason = "is negative" if negative else "is not a duration"
        raise BadValueError(text, f"{reason}", "Write 500ms, 30s, 5m or 1h")
    seconds = float(number) * factor
    if seconds > LONGEST_DURATION:
        raise BadValueError(text, "is longer than a year")
    return seconds


def positive_duration(text: str) -> float:
    """Read a duration that must not be zero, in seconds."""
    seconds = duration(text)
    if seconds == 0:
        raise BadValueError(text, "would give no time at all", "Write a duration above zero, such as 60s")
    return seconds


def duration_or_off(text: str) -> float:
    """Read a duration in seconds; `off` is 0."""
    return 0.0 if text == "off" else positive_duration(text)


def switch(text: str) -> str:
    """Read what a switch's variable says: `on` or `off`, and what people write for these."""
    if text not in ON + OFF:
        raise BadValueError(text, "is neither on nor off", "Write on or off")
    return "on" if text in ON else "off"


def size_or_off(text: str) -> int:
    """Read a size in bytes; `off` is 0."""
    return 0 if text == "off" else size(text)


def size(text: str) -> int:
    """Read `512M` or `1G` into bytes; the units K, M, G, T are powers of 1024."""
    number, factor = _split(text, _BYTES_PER_UNIT)
    if factor is None or not _is_decimal(number) or float(number) == 0:
        raise BadValueError(text, "is not a size", "Write 512M or 1G")
    return int(float(number) * factor)


def whole(text: str, least: int, most: int, unit: str) -> int:
    """Read a whole number from `least` to `most`; `unit` is what is counted, for the sentence."""
    digits = text.removeprefix("-")
    if not digits or not _DIGITS.issuperset(digits):
        raise BadValueError(text, "is not a whole number")
    # int() refuses thousands of digits with an error of its own (sys.set_int_max_str_digits).
    number = int(text) if len(digits) <= len(str(most)) else most + 1
    if text.startswith("-") and digits.strip("0"):
        raise BadValueError(text, "is negative", f"Write a number of {unit} from {least} to {most}")
    if not least <= number <= most:
        raise BadValueError(text, "is out of range", f"Write a number of {unit} from {least} to {most}")
    return number


def workers(text: str) -> int:
    """Read a number of workers; `auto` is 0, since only the machine knows."""
    if text == "auto":
        return 0
    try:
        return whole(text, 1, MOST_WORKERS, "workers")
    except BadValueError as error:
        error.remedy = error.remedy or f"Write a number from 1 to {MOST_WORKERS}, or auto"
        raise


def surge(text: str) -> int:
    """Read a number of extra workers, zero included."""
    return whole(text, 0, MOST_WORKERS, "extra workers")


def one_of(*choices: str, later: tuple[str, ...] = ()) -> Callable[[str], str]:
    """Make a reader of one word; words in `later` are known, but their part is not built yet."""

    def read(text: str) -> str:
        if text in later:
            raise BadValueError(text, "is not in this version", f"Write {_listed(choices)}")
        if text not in choices:
            raise BadValueError(text, "is not one of the choices", f"Write {_listed(choices)}")
        return text

    return read


def assignment(text: str) -> str:
    """Read `NAME=VALUE`; it stays a text, since it has to cross an exec."""
    name, equals, _ = text.partition("=")
    if not (equals and name.isidentifier()):
        raise BadValueError(text, "is not NAME=VALUE", "Write it like timeout_keep_alive=30")
    return text


def instance_name(text: str) -> str:
    """Read a name: 1 to 48 letters, digits, dots, hyphens and underscores; it becomes a directory."""
    if not text or len(text) > LONGEST_NAME or not NAME_CHARACTERS.issuperset(text) or text in {".", ".."}:
        raise BadValueError(
            text, "is not a name", f"Write 1 to {LONGEST_NAME} letters, digits, dots, hyphens or underscores"
        )
    return text


def target(text: str) -> str:
    """Read `MODULE:ATTRIBUTE`, both of them dotted Python names."""
    module, colon, attribute = text.partition(":")
    if _is_dotted(module) and _is_dotted(attribute):
        return text
    raise BadValueError(text, "is not MODULE:ATTRIBUTE", _better_target(module, colon, attribute))


def name_of_target(text: str) -> str:
    """Make an instance's name of a target: its module, cut and cleaned so that it is always a valid name."""
    module = text.partition(":")[0]
    return "".join(char if char in NAME_CHARACTERS else "-" for char in module)[:LONGEST_NAME] or "prod-run"


def _better_target(module: str, colon: str, attribute: str) -> str:
    if "/" in module or module.endswith(".py"):
        dotted = module.removeprefix("./").removesuffix(".py").strip("/").replace("/", ".")
        better = f"{dotted}:{attribute or 'main'}"
        advice = "Name the module as `import` does, not its file"
        return f"{advice}: {better}" if _is_dotted(dotted) else advice
    if attribute.endswith(")"):
        return "Name the callable without parentheses, and if it makes the application, add --factory"
    if not colon and _is_dotted(module):
        # What gunicorn takes if nothing is said, and Django makes.
        name = "application" if module.rpartition(".")[2] in ("wsgi", "asgi") else "main"
        return f"Say what in the module is to be run, for example {module}:{name}"
    return "Write it like shop.web:main"


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _is_decimal(text: str) -> bool:
    whole_part, _, fraction = text.partition(".")
    # float() would also take 1e9, nan, inf, 1_000 and blanks.
    return whole_part != "" and _DIGITS.issuperset(whole_part + fraction)


def _split(text: str, units: tuple[tuple[str, float], ...] | tuple[tuple[str, int], ...]) -> tuple[str, float | None]:
    for unit, factor in units:
        if text.endswith(unit):
            return text.removesuffix(unit), factor
    return text, None


def _listed(choices: tuple[str, ...]) -> str:
    return " or ".join((", ".join(choices[:-1]), choices[-1])) if len(choices) > 1 else choices[0]
