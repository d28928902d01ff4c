"""What every module stands on: records, and memcurve's own errors.

`Record` is a frozen, keyword-only dataclass in a few lines. The standard library's costs a third of a cold
command's time (it imports `inspect` and compiles an `__init__` per class), and `typing` is imported for checks only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Never, NoReturn, Self, dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda cls: cls


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """An immutable record: keyword-only fields from the annotations, equal by kind and values, hashable."""

    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        own = (name for name, kind in cls.__annotations__.items() if "ClassVar" not in kind)
        cls.fields = (*cls.fields, *own)

    def __init__(self, **values: Any) -> None:
        mine = self.__dict__
        for name in self.fields:
            if name in values:
                mine[name] = values.pop(name)
            elif hasattr(type(self), name):
                mine[name] = getattr(type(self), name)
            else:
                raise TypeError(f"{type(self).__name__} needs {name}=")
        if values:
            raise TypeError(
                f"{type(self).__name__} has no field {next(iter(values))!r}; it has {', '.join(self.fields)}"
            )

    def replace(self, **values: Any) -> Self:
        """The same record with some fields changed."""
        return type(self)(**{**self.as_dict(), **values})

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return {name: self.__dict__[name] for name in self.fields}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: can't set {name!r}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={self.__dict__[name]!r}' for name in self.fields)})"

    def _values(self) -> tuple[object, ...]:
        return tuple(map(self.__dict__.__getitem__, self.fields))


def assert_never(value: Never) -> NoReturn:
    """Closes a `match` that names every kind: mypy reports the kind that is missing."""
    raise AssertionError(f"unhandled: {value!r}")


class MemcurveError(ValueError):
    """An error of memcurve's own: one line that names what was wrong and the nearest thing that would work."""

    exit_code = 2


class BadConfig(MemcurveError):
    """A config, an option or an argument holds something unusable. Names key, value and what was expected."""


class BadFile(MemcurveError):
    """A file is damaged, or not of the kind it should be. Names file, offset and what was expected."""


class NotDescribed(MemcurveError):
    """A model type, a structure or a name that memcurve does not describe. Names the nearest that it does."""

    exit_code = 3


class UnknownFile(NotDescribed, BadFile):
    """A file of a kind that is known, of a model that is not."""


class Refused(MemcurveError):
    """The engine itself refuses this combination; the message is its reason."""


class TooLarge(MemcurveError, OverflowError):
    """A count does not fit: of bytes in the int64 of an array, or of steps in a search."""


class TooMuch(MemcurveError):
    """An answer that is more than was allowed: of bytes, or than fits. The answer itself was printed before."""

    exit_code = 4


class MissingExtraError(MemcurveError):
    """An optional package is not installed; the message says which extra brings it."""

    exit_code = 1


def clean(text: str) -> str:
    """A text from a config as a terminal or a file may hold it: no control characters, nor halves of characters."""
    return "".join(char if char.isprintable() else "�" for char in text)


def show(value: object) -> str:
    """A value as it stands in an error: one line, bounded length, no control characters."""
    text = (
        ascii(value) if isinstance(value, (str, bytes, int, float, bool, type(None))) else f"a {type(value).__name__}"
    )
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole(name: str, value: Any, least: int = 0) -> int:
    """An argument as an integer of `least` or more (numpy's integers too). BadConfig for anything else."""
    try:
        number = value.__index__()
    except (AttributeError, TypeError):  # no integer; an array of several
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise BadConfig(f"{name}: {show(value)}; expected an integer of {least} or more")
    return int(number)


def nearest(word: str, known: tuple[str, ...] | list[str], count: int = 3) -> str:
    """The known words nearest to `word`, for an error: "a, b or c". Of owner/name the name alone may be near, or its beginning."""
    import difflib

    words: dict[str, str] = {}
    for name in known:
        tail = name.rpartition("/")[2].lower()
        for form in (name.lower(), tail, *(text[: len(word) + 1] for text in (tail, name.lower()))):
            words.setdefault(form, name)
    found = difflib.get_close_matches(word[:200].lower(), list(words), n=2 * count, cutoff=0.5)
    close = list(dict.fromkeys(words[one] for one in found))[:count]
    return " or ".join([", ".join(close[:-1]), close[-1]] if len(close) > 1 else close)
