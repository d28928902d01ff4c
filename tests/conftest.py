"""Shared by all tests: the recorded cases, and the counts that the run prints at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

TRUTH = Path(__file__).parent / "truth"
_counts: list[str] = []

# For programs that tests run: the most MiB of memory since the program began. ru_maxrss would begin with the parent's.
PEAK = """
def peak():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
"""


def truth(name: str) -> list[dict[str, Any]]:
    """The lines of a recorded file."""
    return [json.loads(line) for line in (TRUTH / name).read_text().splitlines()]


@pytest.fixture
def count(record_property: Any) -> Any:
    """Says how much a test compared; printed with the summary."""

    def say(text: str) -> None:
        record_property("count", text)

    return say


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call":
        _counts.extend(str(value) for name, value in report.user_properties if name == "count")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for text in sorted(_counts):
        terminalreporter.write_line(text)
