"""Demand: what requests hold where none of them waits, by the curve of their engine."""

from __future__ import annotations

from .compiled import np
from .needs import filled_of, needs_of
from .run import SHARES, Run, Series, shares
from .sweep import Sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..curve import MemoryCurve
    from .reading import Chunk
    from .service import Service
    from .sweep import Swept


class Longest:
    """The requests that an engine takes: a prompt shorter than its longest request; an output ends there. turned_down, cut: how many
    were longer."""

    def __init__(self, curve: MemoryCurve) -> None:
        bounds = curve.allocator.bounds() if curve.allocator is not None else {}
        self.most = bounds["context"][1] if "context" in bounds else None
        self.turned_down = self.cut = 0

    def taken(self, chunk: Chunk) -> Chunk:
        if self.most is None:
            return chunk
        fits = chunk.prompt < self.most
        if not fits.all():
            self.turned_down += int((~fits).sum())
            chunk = chunk.picked(np.flatnonzero(fits))
        left = self.most - chunk.prompt
        if (over := int((chunk.output > left).sum())) > 0:
            self.cut += over
            chunk = chunk.replace(output=np.minimum(chunk.output, left))
        return chunk


class Demand:
    """One curve's bytes over a trace without a queue. capacity: a line that demand may pass."""

    def __init__(
        self,
        curve: MemoryCurve,
        service: Service,
        *,
        encoder: int = 0,
        capacity: int | None = None,
        gpus: int = 0,
        gpu: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.curve, self.service, self.capacity = curve, service, capacity
        self.gpus, self.gpu, self.notes = gpus, gpu, notes
        self.longest = Longest(curve)
        self.sweep = Sweep(needs_of(curve, encoder), service, capacity)
        filled = filled_of(curve)
        self.filled = None if filled is None else Sweep(filled, service)

    def feed(self, chunk: Chunk) -> None:
        for sweep in filter(None, (self.sweep, self.filled)):
            if sweep.origin is None:
                sweep.origin = int(chunk.time[0])
        chunk = self.longest.taken(chunk)
        if len(chunk):
            self.sweep.feed(chunk)
            if self.filled is not None:
                self.filled.feed(chunk)

    def finish(self) -> Run:
        curve, step, capacity = self.curve, self.service.step_ns, self.capacity
        swept = self.sweep.finish()
        filled = None if self.filled is None else self.filled.finish()
        each = "each request is a call of its own, of a batch of one"
        return Run(
            name=curve.name, engine=curve.engine, dtype=curve.dtype, gpu=self.gpu, gpus=self.gpus, capped=False,
            capacity_bytes=capacity, peak_bytes=swept.peak, peak_ns=swept.peak_step * step, mean_bytes=round(swept.mean),
            percentiles=shares(swept.counted.percentiles(*SHARES)), peak_running=swept.peak_running,
            mean_running=swept.mean_running, duration_ns=swept.steps * step, busy=swept.busy / swept.steps,
            filled=filled.mean / swept.mean if filled is not None and swept.mean else None,
            over=None if capacity is None else swept.over / swept.steps,
            over_bytes=None if capacity is None else max(swept.peak - capacity, 0),
            moved_bytes=None if capacity is None else swept.moved,
            turned_down=self.longest.turned_down, cut=self.longest.cut,
            series=series(swept, filled, step),
            notes=tuple(dict.fromkeys((*self.notes, *curve.notes, *((each,) if curve.engine == "transformers" else ())))),
        )  # fmt: skip


def series(swept: Swept, filled: Swept | None, step: int) -> Series:
    """A row for each bin that has a step."""
    width, count = swept.width, len(swept.bins)
    steps = np.full(count, width, np.int64)
    steps[-1] = swept.steps - width * (count - 1)
    kept = steps > 0
    bins, sums, steps = swept.bins[kept], swept.sums[kept], steps[kept]
    columns = {
        "time_ns": np.arange(count)[kept] * width * step,
        "bytes_min": bins[:, 0], "bytes_mean": np.rint(sums[:, 0] / steps).astype(np.int64), "bytes_max": bins[:, 1],
        "running_mean": sums[:, 1] / steps, "running_max": bins[:, 2],
        "arrived": bins[:, 3], "arrived_tokens": sums[:, 2].astype(np.int64),
    }  # fmt: skip
    if filled is not None:
        columns["filled_mean"] = np.rint(filled.sums[: len(kept)][kept][:, 0] / steps).astype(np.int64)
    return Series(width_ns=width * step, columns=columns)
