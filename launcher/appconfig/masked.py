"""
A value that does not show itself.

Owns `Secret`, and the way to call the app's own code with a secret so that no error tells it.
Must never write a value, or its length, anywhere; `reveal()` is the only way to it.
"""

from __future__ import annotations

from _thread import get_ident
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MASK = "<secret>"

_noted: dict[int, bool] = {}  # threads that want to know, and whether one was revealed


class Secret(Generic[T]):
    """A secret; printed, formatted, logged or copied it stays one, and only `reveal()` gives the value."""

    __slots__ = ("_reveal",)

    def __init__(self, value: T) -> None:
        # In a closure: tools that walk the slots of unknown objects and print them find a function.
        self._reveal: Callable[[], T] = lambda: value

    def reveal(self) -> T:
        """Return the value itself."""
        if _noted and get_ident() in _noted:
            _noted[get_ident()] = True
        return self._reveal()

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __bool__(self) -> bool:
        return bool(self.reveal())

    def __eq__(self, other: object) -> bool:
        # Never equal to a bare text: code that compares the two has forgotten which of them it holds.
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = self.reveal(), other.reveal()
        if not (isinstance(mine, str) and isinstance(theirs, str)):
            return bool(mine == theirs)
        import hmac  # noqa: PLC0415  3 ms that few apps need

        # Comparing with == would tell an attacker who measures how many characters are right.
        return hmac.compare_digest(*(text.encode("utf-8", "surrogatepass") for text in (mine, theirs)))

    def __hash__(self) -> int:
        return hash((Secret, self.reveal()))

    def __copy__(self) -> Secret[T]:
        return self

    def __deepcopy__(self, memo: object) -> Secret[T]:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # A pickle holds the value in clear and ends in caches, queues and crash reports, far from here.
        message = "a secret is not pickled: pass what reveal() gives, where you know who reads it"
        raise TypeError(message)


def reveals(deed: Callable[[], T]) -> tuple[T, bool]:
    """Call something; return its result, and whether this thread has revealed a secret in it."""
    thread = get_ident()
    _noted[thread] = False
    try:
        return deed(), _noted[thread]
    finally:
        del _noted[thread]


class RefusedSecretError(ValueError):
    """A secret's value is not acceptable.  Its text never holds the value, so it may be shown."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def shielded(deed: Callable[..., T], *args: Any) -> T:
    """
    Call the app's own code with a secret.

    Raises:
        RefusedSecretError: it raised something; what is left of that is its kind.
    """
    try:
        return deed(*args)
    except RefusedSecretError as error:
        reason, remedy = error.reason, error.remedy
    except (Exception, SystemExit) as error:  # noqa: BLE001  whatever the app's code raises is reported
        reason, remedy = f"{type(error).__name__} from {name_of(deed)}", ""
    # Raised out here, it has no chained error, whose text and frames would hold the value.
    raise RefusedSecretError(reason, remedy)


def name_of(deed: object) -> str:
    """Name a converter or a validator, for a sentence."""
    return str(getattr(deed, "__name__", "") or type(deed).__name__)
