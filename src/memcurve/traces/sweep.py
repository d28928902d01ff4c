"""Requests without a limit of memory: bytes of every step, exactly, in one pass.

A request that starts at step s holds bytes(prompt) for its prefill, then one token more with every step, to its end. What it adds to
the total is noted where it changes: once at its start, once at its end, and of a staircase once where its rises begin and once
where they stop, since rises of one period are taken on from step to step. So a request costs the same however long it runs, and
a step costs the same however many run.
"""

from __future__ import annotations

from ..base import Record, Refused, TooLarge
from .bins import BINS, BUCKETS, Counted, bucket, clear, halve
from .compiled import compiled, np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .bins import Floats, Ints
    from .needs import Needs
    from .reading import Chunk
    from .service import Service

# The most steps that one request may run, which is what a sweep's memory follows.
MOST_STEPS = 2**24
FIRST_STEPS = 1024
MOST_BYTES = 2**62
# Of the state: the step that comes next; bytes and requests of the one before; steps of a bin, which bin it is and what is left of
# it; the most bytes, the first step with so many, and the most requests; steps in which anything ran; the end of all so far; steps
# over the capacity.
NEXT, LEVEL, RUNNING, WIDTH, BIN, LEFT, PEAK, PEAK_STEP, PEAK_RUNNING, BUSY, END, OVER = range(12)
STATE = 12


@compiled
def advance(
    until: int, state: Ints, level: Ints, running: Ints, rises: Ints, held: Ints, periods: Ints, phase: Ints,
    whole: Ints, sums: Floats, counts: Ints, unit: int, last: int, area: Floats, capacity: int,
) -> None:  # fmt: skip
    """All steps before `until`. last: the step from which on nothing runs; area: sums of bytes, of requests, of bytes over the
    capacity, and of rises of these."""
    size, many = len(level), len(periods)
    now, total, count = state[NEXT], state[LEVEL], state[RUNNING]
    place, left, width = state[BIN], state[LEFT], state[WIDTH]
    known, spot, over = -1, 0, max(total - capacity, 0)
    while now < until:
        if now >= last:
            # Nothing runs: the rest at once, a bin at a time.
            while now < until:
                if left == 0:
                    place += 1
                    if place == whole.shape[0]:
                        halve(whole, sums)
                        place //= 2
                        width *= 2
                    left = width
                some = min(left, until - now)
                whole[place, 0] = min(whole[place, 0], total)
                whole[place, 1] = max(whole[place, 1], total)
                sums[place, 0] += float(total) * some
                counts[bucket(total // unit)] += some
                area[0] += float(total) * some
                now += some
                left -= some
            for index in range(many):
                phase[index] = now % periods[index]
            break
        at = now % size
        step = level[at]
        level[at] = 0
        count += running[at]
        running[at] = 0
        for index in range(many):
            spot_in = phase[index]
            step_rise = rises[index, at]
            if step_rise:
                held[index, spot_in] += step_rise
                rises[index, at] = 0
            step += held[index, spot_in]
            spot_in += 1
            phase[index] = 0 if spot_in == periods[index] else spot_in
        total += step
        if left == 0:
            place += 1
            if place == whole.shape[0]:
                halve(whole, sums)
                place //= 2
                width *= 2
            left = width
        whole[place, 0] = min(whole[place, 0], total)
        whole[place, 1] = max(whole[place, 1], total)
        whole[place, 2] = max(whole[place, 2], count)
        sums[place, 0] += total
        sums[place, 1] += count
        area[0] += total
        area[1] += count
        if total != known:
            spot = bucket(total // unit)
            known = total
        counts[spot] += 1
        if count:
            state[BUSY] += 1
        if total > capacity:
            state[OVER] += 1
            area[2] += total - capacity
            area[3] += max(total - capacity - over, 0)
            over = total - capacity
        else:
            over = 0
        if total > state[PEAK]:
            state[PEAK], state[PEAK_STEP] = total, now
        if count > state[PEAK_RUNNING]:
            state[PEAK_RUNNING] = count
        now += 1
        left -= 1
    state[NEXT], state[LEVEL], state[RUNNING] = now, total, count
    state[BIN], state[LEFT], state[WIDTH] = place, left, width


@compiled
def feed(
    starts: Ints, steps: Ints, prompts: Ints, outputs: Ints, first: Ints, final: Ints, table: Ints,
    state: Ints, level: Ints, running: Ints, rises: Ints, held: Ints, periods: Ints, phase: Ints, whole: Ints, sums: Floats,
    counts: Ints, unit: int, last: int, area: Floats, capacity: int,
) -> int:  # fmt: skip
    """Requests in order of their start: steps of the prefill, bytes at its start and at the end. The step from which on nothing is
    noted any more."""
    size = len(level)
    for index in range(len(starts)):
        start = starts[index]
        if start > state[NEXT]:
            advance(
                start, state, level, running, rises, held, periods, phase, whole, sums, counts, unit, last, area,
                capacity,
            )  # fmt: skip
        if state[LEFT] == 0 and state[NEXT] == start:
            # The bin of this step begins with it.
            state[BIN] += 1
            if state[BIN] == whole.shape[0]:
                halve(whole, sums)
                state[BIN] //= 2
                state[WIDTH] *= 2
            state[LEFT] = state[WIDTH]
        whole[state[BIN], 3] += 1
        sums[state[BIN], 2] += prompts[index] + outputs[index]
        prompt, output = prompts[index], outputs[index]
        end = start + steps[index] + output - 1
        state[END] = max(state[END], end)
        last = max(last, end + 1)
        level[start % size] += first[index]
        level[end % size] -= final[index]
        running[start % size] += 1
        running[end % size] -= 1
        # The token at context x is written in step x + shift.
        shift = start + steps[index] - prompt
        stop = prompt + output - 1
        for row in range(table.shape[0]):
            low, high = max(prompt, table[row, 0]), min(stop, table[row, 1])
            if low >= high:
                continue
            kind, period = table[row, 2], periods[table[row, 2]]
            low += (table[row, 3] - low) % period
            if low >= high:
                continue
            after = low + (high - low + period - 1) // period * period
            last = max(last, after + shift + 1)
            rises[kind, (low + shift) % size] += table[row, 4]
            rises[kind, (after + shift) % size] -= table[row, 4]
    return last


class Swept(Record):
    """steps, and of them those in which anything ran; peak: the most bytes in a step, the first such step, and the most requests in one;
    mean: over all steps; over: steps over the capacity, moved: bytes by which the total rose over it, step by step; width: steps of a bin; bins: rows of (least bytes, most bytes, most running, arrived); sums: of bytes and of
    running requests over the steps of a bin, and of arrived tokens."""

    steps: int
    busy: int
    peak: int
    peak_step: int
    peak_running: int
    mean: float
    mean_running: float
    over: int
    moved: int
    width: int
    bins: Ints
    sums: Floats
    counted: Counted


class Sweep:
    """One curve over a trace. origin: the time of step 0, by default of the first request. feed() takes chunks in order of time, finish() runs to the last end."""

    def __init__(self, need: Needs, service: Service, capacity: int | None = None, bins: int = BINS) -> None:
        self.need, self.service = need, service
        self.capacity = MOST_BYTES if capacity is None else capacity
        self.state = np.zeros(STATE, np.int64)
        self.state[WIDTH] = self.state[LEFT] = 1
        self.state[LEVEL] = need.base
        self.whole, self.sums = np.empty((bins, 4), np.int64), np.empty((bins, 3))
        clear(self.whole, self.sums, 0)
        self.counts = np.zeros(BUCKETS, np.int64)
        self.area = np.zeros(4)
        self.phase = np.zeros(len(need.periods), np.int64)
        self.held = np.zeros((len(need.periods), int(need.periods.max())), np.int64)
        self.last = 0
        self.origin: int | None = None
        self.largest = self.before = 0
        many = len(need.periods)
        self.level, self.running = np.zeros(FIRST_STEPS, np.int64), np.zeros(FIRST_STEPS, np.int64)
        self.rises = np.zeros((many, FIRST_STEPS), np.int64)

    def _rings(self, size: int) -> None:
        """Rings of so many steps ahead, with what the old ones hold."""
        old = len(self.level)
        steps = self.state[NEXT] + np.arange(old)
        level, running = np.zeros(size, np.int64), np.zeros(size, np.int64)
        rises = np.zeros((len(self.need.periods), size), np.int64)
        level[steps % size], running[steps % size] = self.level[steps % old], self.running[steps % old]
        rises[:, steps % size] = self.rises[:, steps % old]
        self.level, self.running, self.rises = level, running, rises

    def feed(self, chunk: Chunk) -> None:
        """TooLarge where a request runs for more steps than can be looked at."""
        step = self.service.step_ns
        if self.origin is None:
            self.origin = int(chunk.time[0])
        starts = -(-(chunk.time - self.origin) // step)
        steps = -(-chunk.prompt // self.service.prefill_tokens)
        longest = int((steps + chunk.output).max())
        if longest > MOST_STEPS:
            raise TooLarge(
                f"a request runs for {longest:,} steps; expected at most {MOST_STEPS:,}: are the rates as meant?"
            )
        ahead = longest + int(self.need.periods.max()) + 2
        if ahead > len(self.level):
            self._rings(1 << (ahead - 1).bit_length())
        first, final = self.need.at(chunk.prompt), self.need.at(chunk.prompt + chunk.output - 1)
        self.largest = max(self.largest, int(final.max()), int(first.max()))
        # No more run at once than did before, the chunk before, and all of this one.
        most = int(self.state[RUNNING]) + self.before + len(chunk)
        self.before = len(chunk)
        if most * self.largest + self.need.base > MOST_BYTES:
            raise TooLarge(
                f"up to {self.largest:,} bytes a request: the total may be more than an integer of 64 bits holds"
            )
        self.last = feed(
            starts, steps, chunk.prompt, chunk.output, first, final, self.need.rises, *self._arrays(), self.need.unit,
            self.last, self.area, self.capacity,
        )  # fmt: skip

    def _arrays(self) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints, Floats, Ints]:
        return (
            self.state, self.level, self.running, self.rises, self.held, self.need.periods, self.phase, self.whole,
            self.sums, self.counts,
        )  # fmt: skip

    def finish(self) -> Swept:
        if self.origin is None:
            raise Refused("replay: no request")
        state = self.state
        advance(int(state[END]), *self._arrays(), self.need.unit, self.last, self.area, self.capacity)
        if state[LEVEL] + self.level[int(state[NEXT]) % len(self.level)] != self.need.base:
            raise AssertionError("bytes are held after the last end")
        used = int(state[BIN]) + 1
        steps = int(state[NEXT])
        counted = Counted(self.need.unit)
        counted.counts, counted.most = self.counts, int(state[PEAK])
        return Swept(
            steps=steps, busy=int(state[BUSY]), peak=int(state[PEAK]), peak_step=int(state[PEAK_STEP]),
            peak_running=int(state[PEAK_RUNNING]), mean=float(self.area[0]) / steps, mean_running=float(self.area[1]) / steps,
            over=int(state[OVER]), moved=int(self.area[3]),
            width=int(state[WIDTH]), bins=self.whole[:used], sums=self.sums[:used], counted=counted,
        )  # fmt: skip
