"""What one model's replay came to, and its series over time."""

from __future__ import annotations

from ..base import Record
from .compiled import np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from numpy.typing import NDArray

    from .reading import Chunk

    class Consumer(Protocol):
        """Takes the requests of a trace, in order of time."""

        def feed(self, chunk: Chunk) -> None: ...

        def finish(self) -> Run: ...


SHARES = (50.0, 90.0, 95.0, 99.0, 99.9)


def shares(values: list[int]) -> dict[str, int]:
    """Percentiles by name: p50, p99.9."""
    return {f"p{share:g}": value for share, value in zip(SHARES, values, strict=True)}


class Series(Record):
    """Columns over time, a row for each bin. time_ns: its start, from the first arrival; width_ns: of every bin but the last."""

    width_ns: int
    columns: dict[str, NDArray[Any]]

    @property
    def time_ns(self) -> NDArray[np.int64]:
        return self.columns["time_ns"]

    def __len__(self) -> int:
        return len(self.time_ns)


class Queue(Record):
    """What requests met where memory is capped. waited, first_token: nanoseconds from arrival to admission, and to the first token, by
    percentile; waited_most, waiting_most: the longest, and the most requests at once. preempted: requests that were, once or more.
    kept_out: how long the first that waited was kept out, by reason, in nanoseconds. hit_tokens: found cached, of computed_tokens others;
    reusable_tokens: of prompts that came before, all that a cache without a limit would find (None where the trace has no hashes).
    dropped_tokens: held by requests when they were preempted; offload_bytes: what these filled, which would move out, and in again,
    instead of being computed anew.
    """

    waited: dict[str, int]
    waited_most: int
    waiting_most: int
    first_token: dict[str, int]
    finished: int
    preempted: int
    preemptions: int
    kept_out: dict[str, int]
    computed_tokens: int
    hit_tokens: int
    reusable_tokens: int | None
    dropped_tokens: int
    offload_bytes: int


class Run(Record):
    """One model over a trace. Bytes are of one GPU (the fullest), or of the whole model where no GPUs are said.

    capped: whether requests waited for memory. capacity_bytes: for state. peak, mean and percentiles are over all steps.
    filled: the share of the bytes held that tokens and states fill, None where all is; the rest is padding, and what is reserved ahead.
    over: the share of steps in which demand passes the capacity; over_bytes: by how much at most; moved_bytes: what would move out, and
    in again, were all that passes it kept elsewhere. turned_down: requests too long for the engine; cut: outputs that it ends early.
    """

    name: str
    engine: str
    dtype: str
    gpu: str
    gpus: int
    capped: bool
    capacity_bytes: int | None
    peak_bytes: int
    peak_ns: int
    mean_bytes: int
    percentiles: dict[str, int]
    peak_running: int
    mean_running: float
    duration_ns: int
    busy: float
    filled: float | None
    over: float | None
    over_bytes: int | None
    moved_bytes: int | None
    turned_down: int
    cut: int
    series: Series
    queue: Queue | None = None
    notes: tuple[str, ...] = ()

    @property
    def utilisation(self) -> float | None:
        """The mean of the bytes held, as a share of the capacity."""
        return self.mean_bytes / self.capacity_bytes if self.capacity_bytes else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, without the series."""
        found = {name: value for name, value in self.as_dict().items() if name != "series"}
        return {
            **found, "utilisation": self.utilisation, "queue": self.queue and self.queue.as_dict(), "notes": list(self.notes),
            "bins": len(self.series), "bin_ns": self.series.width_ns,
        }  # fmt: skip
