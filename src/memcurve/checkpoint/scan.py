"""JSON headers and indexes, read where they stand: a header of 100 MB is never made into objects.

What is read is flat (names, short records, pairs of strings), so a few patterns over the bytes are enough. Whatever
else an object may hold is checked as JSON, a short text at a time. As strict as serde_json, which reads these files
for everyone else: no NaN, no control characters or halves of surrogate pairs in strings, nesting of 127.
"""

from __future__ import annotations

import json
import re

from ..base import BadFile, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

# A record of a tensor takes about 130 bytes; what is read as objects is no longer than this.
MAX_VALUE, MAX_DEPTH = 2**13, 126
MAX_PAIRS, MAX_VALUES = 2**18, 2**22

SPACE = rb"[ \t\n\r]*+"
ESCAPE = rb"""\\(?:["\\/bfnrt]|u(?:[0-9a-cA-CefEF][0-9a-fA-F]{3}|[dD][0-7][0-9a-fA-F]{2}
    |[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}))""".replace(b"\n    ", b"")  # fmt: skip
STRING = rb'"[^"\\\x00-\x1f]*+(?:' + ESCAPE + rb'[^"\\\x00-\x1f]*+)*+"'

space = re.compile(SPACE).match
key = re.compile(SPACE + rb"(" + STRING + rb")" + SPACE + rb":" + SPACE).match
value_string = re.compile(STRING).match
comma = re.compile(SPACE + rb"([,}])").match
opening = re.compile(SPACE + rb"\{" + SPACE + rb"(\}?)").match
lone = re.compile("[\ud800-\udfff]").search


class Scanner:
    """A JSON text of bytes that is read from left to right. What is not as expected raises BadFile with the byte.

    start: where the text stands in its file.
    """

    def __init__(self, path: str, text: bytes, start: int = 0) -> None:
        self.path, self.text, self.start, self.at = path, text, start, 0
        self.objects = 0
        if not text.isascii():
            self.check_utf8()

    def check_utf8(self) -> None:
        """A MiB at a time: as one text, a single character beyond the first plane makes four bytes of each."""
        import codecs

        decoder = codecs.getincrementaldecoder("utf-8")()
        for at in range(0, len(self.text), 2**20):
            self.at = at
            try:
                decoder.decode(self.text[at : at + 2**20], at + 2**20 >= len(self.text))
            except UnicodeDecodeError:
                self.bad("bytes that are no UTF-8", "UTF-8")
        self.at = 0

    def bad(self, found: str, expected: str) -> NoReturn:
        raise BadFile(f"{self.path}: byte {self.start + self.at}: {found}; expected {expected}")

    def here(self) -> str:
        return show(self.text[self.at : self.at + 24]) if self.at < len(self.text) else "the text ends"

    def members(self) -> Iterator[str]:
        """The keys of an object, one by one; before the next, the caller has read the value."""
        found = opening(self.text, self.at)
        if not found:
            self.bad(self.here(), "an object: {")
        self.at = found.end()
        closed = found[1] == b"}"
        while not closed:
            found = key(self.text, self.at)
            if not found:
                self.bad(self.here(), 'a key: "name":')
            self.at = found.end()
            yield self.unquoted(found[1])
            found = comma(self.text, self.at)
            if not found:
                self.bad(self.here(), ", or }")
            self.at = found.end()
            closed = found[1] == b"}"

    def unquoted(self, quoted: bytes) -> str:
        if len(quoted) > MAX_VALUE:
            self.bad(f"a string of {len(quoted)} bytes", f"at most {MAX_VALUE}")
        return json.loads(quoted) if b"\\" in quoted else quoted[1:-1].decode()

    def string(self) -> str:
        found = value_string(self.text, self.at)
        if not found:
            self.bad(self.here(), "a string")
        self.at = found.end()
        return self.unquoted(found[0])

    def skip_strings(self) -> None:
        """An object of strings, or null, and nothing of it kept."""
        if self.text.startswith(b"null", self.at):
            self.at += 4
            return
        for count, _ in enumerate(self.members()):
            found = value_string(self.text, self.at)
            if not found or count == MAX_PAIRS:
                self.bad(self.here(), f"a string, and at most {MAX_PAIRS} of them")
            self.at = found.end()

    def value(self) -> Any:
        """A short value as objects, each JSON object as a tuple of its pairs."""
        window = self.text[self.at : self.at + MAX_VALUE]
        try:
            found, length = DECODER.raw_decode(window.decode("utf-8", "ignore"))
        except RecursionError:
            self.bad("deep nesting", f"at most {MAX_DEPTH} levels")
        except ValueError:
            self.bad(self.here(), f"JSON, of {MAX_VALUE} bytes at most")
        text = window.decode("utf-8", "ignore")[:length]
        if text.count("[") + text.count("{") > MAX_DEPTH:
            self.bad("deep nesting", f"at most {MAX_DEPTH} levels")
        if "\\u" in text and lone(json.dumps(found, ensure_ascii=False)):
            self.bad("half of a surrogate pair", "text")
        self.at += len(text.encode())
        self.objects += len(text)
        if self.objects > MAX_VALUES:
            self.bad(f"more than {MAX_VALUES} bytes of other keys", "fewer")
        return found

    def end(self) -> None:
        """Sees to it that nothing but spaces follows."""
        found = space(self.text, self.at)
        self.at = found.end() if found else self.at
        if self.at < len(self.text):
            self.bad(self.here(), "the end")


def finite(text: str) -> float:
    """A number; ValueError for NaN and for what no float holds."""
    number = float(text) if text.lstrip("-")[:1].isdigit() else float("inf")
    if abs(number) == float("inf"):
        raise ValueError(text)
    return number


def integer(text: str) -> int | float:
    return int(text) if len(text) <= 20 and text != "-0" else finite(text)


DECODER = json.JSONDecoder(object_pairs_hook=tuple, parse_float=finite, parse_constant=finite, parse_int=integer)
