"""How long a request runs: the stated, simple model of time that a replay goes by.

Without a queue, time goes in steps of one length. In a step each request that decodes gets one token, and each that prefills so
many tokens of its prompt, however many there are. A request starts with the step after its arrival, and holds the whole prompt from
then on; the step that ends its prefill gives its first token.

With a queue, the engine's scheduler makes batches, and prompts share the rate of prefill: a batch takes as long as its prompts'
tokens at that rate, and one step more where any request decodes (engines/vllm_replay.py).

What is asked of a replay is memory; time only says how long it is held.
"""

from __future__ import annotations

from ..base import BadConfig, Record, Refused, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

PREFILL, DECODE = 20_000.0, 40.0
MOST_RATE = 10.0**9


class Service(Record):
    """step_ns: of a step, in nanoseconds. prefill_tokens: of one prompt in one step. source: where both are from."""

    step_ns: int
    prefill_tokens: int
    source: str

    @property
    def decode_rate(self) -> float:
        """Tokens per second of one request that decodes."""
        return 1e9 / self.step_ns

    @property
    def prefill_rate(self) -> float:
        return self.prefill_tokens * self.decode_rate

    @property
    def rates(self) -> str:
        return f"{self.prefill_rate:,.0f} tokens/s of prefill and {self.decode_rate:,.1f} of decode ({self.source})"

    def said(self, capped: bool) -> str:
        """The assumption in words."""
        rates = self.rates
        if capped:
            return f"{rates}, the first shared by all prompts of a batch, the second each request's: time a batch takes, in steps of {self.step_ns / 1e6:,.3g} ms"
        return f"{rates} for each request, whatever the load, in steps of {self.step_ns / 1e6:,.3g} ms"

    def to_dict(self) -> dict[str, Any]:
        return {
            "step_ns": self.step_ns, "prefill_tokens_per_step": self.prefill_tokens, "prefill_rate": self.prefill_rate,
            "decode_rate": self.decode_rate, "source": self.source,
        }  # fmt: skip


def service(prefill: float | None, decode: float | None, source: str | None = None) -> Service:
    """Of tokens per second; what is not given is assumed, and said to be."""
    for name, rate in (("prefill_rate", prefill), ("decode_rate", decode)):
        if rate is not None and not (isinstance(rate, (int, float)) and 1e-3 <= rate <= MOST_RATE):
            raise BadConfig(f"{name}: {show(rate)}; expected tokens per second, such as {PREFILL:,.0f} or {DECODE:g}")
    if source is None:
        missing = [name for name, rate in (("prefill", prefill), ("decode", decode)) if rate is None]
        source = f"{' and '.join(missing)} assumed" if missing else "as given"
    step = max(1, round(1e9 / (decode or DECODE)))
    return Service(step_ns=step, prefill_tokens=max(1, round((prefill or PREFILL) * step / 1e9)), source=source)


class Elapsed:
    """Least squares over requests whose trace says how long they took: elapsed = prompt · a + (output − 1) · b, in nanoseconds.

    Sums are floats of 53 bits, which is more than the model is worth.
    """

    def __init__(self) -> None:
        self.sums = [0.0] * 5
        self.count = 0

    def add(self, prompt: NDArray[Any], output: NDArray[Any], elapsed: NDArray[Any]) -> None:
        told = elapsed > 0
        p, o, e = (one[told].astype(float) for one in (prompt, output - 1, elapsed))
        for index, pair in enumerate(((p, p), (p, o), (o, o), (p, e), (o, e))):
            self.sums[index] += float((pair[0] * pair[1]).sum())
        self.count += int(told.sum())

    def service(self) -> Service:
        """Refused where these requests say of no rate."""
        pp, po, oo, pe, oe = self.sums
        split = pp * oo - po * po
        if self.count < 2 or split <= 1e-12 * pp * oo:
            raise Refused(
                f"fit: {self.count:,} requests that say how long they took, from which prefill and decode can't be told apart; "
                "give prefill_rate and decode_rate"
            )
        a, b = (pe * oo - oe * po) / split, (oe * pp - pe * po) / split
        if a <= 0 or b <= 0:
            which = "prompt" if a <= 0 else "output"
            raise Refused(
                f"fit: requests with a longer {which} did not take longer ({self.count:,} of them); give prefill_rate and decode_rate"
            )
        return service(
            min(1e9 / a, MOST_RATE), min(1e9 / b, MOST_RATE), f"fitted to {self.count:,} requests of the trace"
        )
