"""Numbers and words that remember how they came about, so that building a model tells what its shapes are made of.

A `Number` is an int with an expression over config keys; arithmetic makes larger expressions, and each comparison is noted as a
condition. While `tracing` is on, parameters keep the expressions of their dimensions, and loops over a traced count hand out
traced indices ("i" for the outermost, then "j", "k").

An expression is an int, a key's name, an index, or (operator, operand, operand); a condition is one that gives a truth value.
"""

from __future__ import annotations

import builtins
import contextlib
import math
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

INDICES = "ijklmn"
CONDITIONS: set[Any] = set()
COUNTS: set[Any] = set()
_depth = 0


def expression(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value.expression if isinstance(value, (Number, Fraction, Word, Words)) else value


def note(*condition: Any) -> None:
    CONDITIONS.add(condition)


def apply(operator: str, left: Any, right: Any) -> Any:
    """The expression of one operation, with neutral elements left out and sums and products in a fixed order."""
    if operator in "+*" and str(left) > str(right):
        left, right = right, left
    if operator == "//" and left == right and isinstance(left, (tuple, str)):
        return 1
    if operator == "-" and isinstance(left, tuple) and left[0] == "+" and right in left[1:]:
        return left[2] if left[1] == right else left[1]
    neutral = {"+": 0, "-": 0, "*": 1, "//": 1, "/": 1}.get(operator)
    if neutral is not None and right == neutral and not isinstance(right, tuple):
        return left
    if operator in "+*" and left == neutral and not isinstance(left, tuple):
        return right
    return (operator, left, right)


def traced(value: Any, how: Any) -> Any:
    """A result that remembers: a Number, or a Fraction for a float."""
    if not isinstance(how, (tuple, str)) or isinstance(value, (bool, complex)):
        return value
    return Number(value, how) if isinstance(value, int) else Fraction(value, how)


class Kept:
    """Arithmetic and comparisons that int and float share."""

    expression: Any

    def __reduce__(self) -> Any:
        return (plain_type(self), (plain(self),))

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __copy__(self) -> Any:
        return self


def plain_type(value: Any) -> Any:
    return {Number: int, Fraction: float, Word: str, Words: list}[type(value)]


def plain(value: Any) -> Any:
    """The value without what it remembers."""
    if isinstance(value, Number):
        return int.__int__(value)
    if isinstance(value, Fraction):
        return float.__float__(value)
    if isinstance(value, Word):
        return str.__str__(value)
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value) if not isinstance(value, Words) else value.items
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


class Number(Kept, int):
    def __new__(cls, value: int, how: Any) -> Number:
        self = int.__new__(cls, value)
        self.expression = how
        return self

    def __hash__(self) -> int:
        return int.__hash__(self)

    def __bool__(self) -> bool:
        note("==", self.expression, 0)
        return int.__bool__(self)

    def __ceil__(self) -> Number:
        return self

    __floor__ = __round__ = __ceil__  # type: ignore[assignment]

    def __neg__(self) -> Any:
        return 0 - self


class Fraction(Kept, float):
    def __new__(cls, value: float, how: Any) -> Fraction:
        self = float.__new__(cls, value)
        self.expression = how
        return self

    def __hash__(self) -> int:
        return float.__hash__(self)

    def __bool__(self) -> bool:
        return float.__bool__(self)

    def __ceil__(self) -> Any:
        return Number(math.ceil(float(self)), ("ceil", self.expression))

    def __int__(self) -> Any:
        return int(float.__float__(self))

    def __round__(self, digits: Any = None) -> Any:
        return Number(builtins.round(float.__float__(self)), ("round", self.expression))


def _arithmetic() -> None:
    import operator as op

    table = {"add": ("+", op.add), "sub": ("-", op.sub), "mul": ("*", op.mul), "floordiv": ("//", op.floordiv),
             "mod": ("%", op.mod), "truediv": ("/", op.truediv), "pow": ("**", op.pow)}  # fmt: skip
    for name, (word, function) in table.items():

        def forward(self: Any, other: Any, word: str = word, function: Any = function) -> Any:
            if not isinstance(other, (int, float)):
                return NotImplemented
            return traced(function(plain(self), plain(other)), apply(word, self.expression, expression(other)))

        def backward(self: Any, other: Any, word: str = word, function: Any = function) -> Any:
            if not isinstance(other, (int, float)):
                return NotImplemented
            return traced(function(plain(other), plain(self)), apply(word, expression(other), self.expression))

        for cls in (Number, Fraction):
            setattr(cls, f"__{name}__", forward)
            setattr(cls, f"__r{name}__", backward)

    def compare(function: Any, word: str, swap: bool) -> Any:
        def method(self: Any, other: Any) -> Any:
            if not isinstance(other, (int, float)) or isinstance(other, bool):
                return NotImplemented
            sides = (self.expression, expression(other))
            note(word, *(sides[::-1] if swap else sides))
            return function(plain(self), plain(other))

        return method

    for cls in (Number, Fraction):
        cls.__lt__ = compare(op.lt, "<", False)  # type: ignore[method-assign]
        cls.__ge__ = compare(op.ge, "<", False)  # type: ignore[method-assign]
        cls.__gt__ = compare(op.gt, "<", True)  # type: ignore[method-assign]
        cls.__le__ = compare(op.le, "<", True)  # type: ignore[method-assign]
        cls.__eq__ = compare(op.eq, "==", False)  # type: ignore[method-assign,assignment]
        cls.__ne__ = compare(op.ne, "==", False)  # type: ignore[method-assign,assignment]


_arithmetic()


class Word(str):
    def __new__(cls, value: str, how: Any) -> Word:
        self = str.__new__(cls, value)
        self.expression = how
        return self

    __hash__ = str.__hash__
    __reduce__ = Kept.__reduce__
    __deepcopy__ = Kept.__deepcopy__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            note("==", self.expression, "'" + plain(other))
            return str.__eq__(self, other)
        return False

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __iter__(self) -> Iterator[Any]:
        text = str.__str__(self)
        for index in Range(len(text), how=("len", self.expression)):
            yield Word(text[index], ("[]", self.expression, index.expression))


class Words(list):  # type: ignore[type-arg]
    """A list of a config: its items know their places."""

    def __init__(self, items: Any, how: Any) -> None:
        self.items = list(items)
        self.expression = how
        super().__init__(keep(item, ("[]", how, index)) for index, item in enumerate(self.items))

    __reduce__ = Kept.__reduce__

    def __deepcopy__(self, memo: Any) -> Any:
        return Words(self.items, self.expression)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, Number):
            return keep(self.items[index], ("[]", self.expression, index.expression))
        return super().__getitem__(index)

    def __contains__(self, item: object) -> bool:
        if isinstance(item, (Number, Word)):
            note("in", item.expression, self.expression)
        return plain(item) in self.items

    def __iter__(self) -> Iterator[Any]:
        for index in Range(len(self.items), how=("len", self.expression)):
            yield self[index]


def keep(value: Any, how: Any) -> Any:
    """A config's value as one that remembers, where there is a kind for it."""
    if isinstance(value, (bool, type(None))):
        return value
    if isinstance(value, int):
        return Number(value, how)
    if isinstance(value, float):
        return Fraction(value, how)
    if isinstance(value, str):
        return Word(value, how)
    if isinstance(value, (list, tuple)) and all(isinstance(item, (int, str, float, list)) for item in value):
        return Words(value, how)
    return value


class _RangeKind(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, (range,)) or type(value) is cls


class Range(metaclass=_RangeKind):
    """range() over a traced count: its indices are traced, named by how deep the loop is nested."""

    def __init__(self, *bounds: Any, how: Any = None) -> None:
        self.range = range(*map(plain, bounds))
        start = bounds[0] if len(bounds) > 1 else 0
        count = expression(bounds[-1] if len(bounds) < 3 else 0)
        self.start = expression(start)
        self.how = how if how is not None else apply("-", count, self.start) if len(bounds) < 3 else None
        if isinstance(self.how, (tuple, str)):
            COUNTS.add(self.how)

    def __iter__(self) -> Iterator[Any]:
        global _depth
        if self.how is None or not isinstance(self.how, (tuple, str)):
            yield from self.range
            return
        name = INDICES[_depth]
        _depth += 1
        try:
            for value in self.range:
                yield Number(value, apply("+", name, self.start))
        finally:
            _depth -= 1

    def __len__(self) -> int:
        return len(self.range)

    def __contains__(self, item: object) -> bool:
        return plain(item) in self.range

    def __getitem__(self, index: Any) -> Any:
        return self.range[index]

    def __reversed__(self) -> Any:
        return reversed(self.range)


class _IntKind(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, int)

    def __subclasscheck__(cls, other: type) -> bool:
        return issubclass(other, int)


class Int(metaclass=_IntKind):
    """int() that keeps what its argument remembers."""

    def __new__(cls, value: Any = 0, *base: Any) -> Any:
        if isinstance(value, Number):
            return value
        if isinstance(value, Fraction):
            return Number(int(plain(value)), ("int", value.expression))
        return int(value, *base)


def length(value: Any) -> Any:
    if isinstance(value, Words):
        return Number(len(value.items), ("len", value.expression))
    return len(value)


def numbered(items: Any, start: int = 0) -> Any:
    if isinstance(items, Words) and not start:
        return ((index, items[index]) for index in Range(len(items.items), how=("len", items.expression)))
    return enumerate(items, start)


class Math:
    """math whose roots and roundings keep what they are made of."""

    def __getattr__(self, name: str) -> Any:
        return getattr(math, name)

    def sqrt(self, value: Any) -> Any:
        return value**0.5 if isinstance(value, (Number, Fraction)) else math.sqrt(value)

    def floor(self, value: Any) -> Any:
        return Int(value) if isinstance(value, (Number, Fraction)) else math.floor(value)


GLOBALS = {"range": Range, "int": Int, "len": length, "enumerate": numbered}


class Dimensions(TorchFunctionMode):
    """Gives each new tensor the expressions of its dimensions, found among the arguments that it was made from."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if isinstance(result, torch.Tensor) and not hasattr(result, "dimensions"):
            found = dimensions(getattr(function, "__name__", ""), args, kwargs, result)
            if found is not None:
                result.dimensions = found
        return result


def dimensions(name: str, args: Any, kwargs: Any, result: torch.Tensor) -> Any:
    if name == "arange":
        bounds = [item for item in args if isinstance(item, (int, float))]
        bounds = [kwargs[key] for key in ("start", "end") if key in kwargs] or bounds
        if len(bounds) == 2:
            return (apply("-", expression(bounds[1]), expression(bounds[0])),)
    pool = list(sizes((args, kwargs)))
    if not pool:
        return None
    used, found = list(pool), []
    for size in result.shape:
        match = next((item for item in used if item[0] == size), None) or next(
            (item for item in pool if item[0] == size), None
        )
        if match in used:
            used.remove(match)
        found.append(match[1] if match else int(size))
    return tuple(found)


def sizes(value: Any) -> Iterator[tuple[int, Any]]:
    """(size, expression) of every number and every tensor's dimension in the arguments, in order."""
    if isinstance(value, torch.Tensor):
        yield from zip(map(int, value.shape), getattr(value, "dimensions", map(int, value.shape)), strict=True)
    elif isinstance(value, dict):
        for item in value.values():
            yield from sizes(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from sizes(item)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield int(plain(value)), expression(value)


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Loops, int() and len() of Transformers' modules, and new parameters, keep what they are made of."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("transformers.models.")]
    modules += [
        module
        for name, module in list(sys.modules.items())
        if name in ("transformers.configuration_utils", "transformers.pytorch_utils")
    ]
    real_new = torch.nn.Parameter.__new__

    def new(cls: Any, data: Any = None, *args: Any, **kwargs: Any) -> Any:
        made = real_new(cls, data, *args, **kwargs)
        if hasattr(data, "dimensions"):
            made.dimensions = data.dimensions
        return made

    for module in modules:
        module.__dict__.update(GLOBALS)
        if module.__dict__.get("math") is math:
            module.__dict__["math"] = Math()
    filling = {
        name: value
        for name, value in vars(torch.nn.init).items()
        if name.endswith("_") and name[0] != "_" and callable(value)
    }
    for name in filling:
        setattr(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor)
    torch.nn.Parameter.__new__ = new  # type: ignore[method-assign,assignment]
    try:
        with torch.device("meta"), Dimensions():
            yield
    finally:
        for name, value in filling.items():
            setattr(torch.nn.init, name, value)
        torch.nn.Parameter.__new__ = real_new  # type: ignore[method-assign]
        for module in modules:
            for name in GLOBALS:
                module.__dict__.pop(name, None)
            if isinstance(module.__dict__.get("math"), Math):
                module.__dict__["math"] = math
