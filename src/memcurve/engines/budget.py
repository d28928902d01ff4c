"""What an engine sets aside of a GPU's memory beside weights and sequence state: total = weights + state + these.

Some follow from the engine's own rule (exact); the others are assumed, by formulas in the model's sizes whose constants
lean to the safe side of recorded start-ups (tests/truth/startup.jsonl). A start-up log of one's own replaces assumptions.
"""

from __future__ import annotations

from ..base import BadConfig, show, whole
from . import module
from .allowances import CONTEXT, Allowance, Measured, Sizes, known

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["Allowance", "Measured", "Sizes", "budget", "given_pool"]

MAX_TOTAL = 2**50
ACTIVATIONS = "activations"


def budget(
    engine: str,
    total_bytes: int,
    *,
    sizes: Sizes,
    tp: int = 1,
    pp: int = 1,
    options: Mapping[str, Any] | None = None,
    log: Measured | None = None,
    driver_bytes: int | None = None,
) -> tuple[Allowance, ...]:
    """What `engine` sets aside on each GPU of total_bytes (what the driver reports, not the data sheet's).

    driver_bytes: nvidia-smi's total, where it is another (SGLang's fraction follows from it). options: the engine's own, by its names. log: what a start-up of the same model said (startup.read_startup).
    BadConfig for an unknown option or a log of another engine; Refused where the engine would not start so.
    """
    own = module(engine)
    total = whole("total_bytes", total_bytes, 1)
    if total > MAX_TOTAL:
        raise BadConfig(f"total_bytes: {show(total_bytes)}; expected the bytes of one GPU")
    ranks, stages = whole("tp", tp, 1), whole("pp", pp, 1)
    if log is not None and log.engine != engine:
        raise BadConfig(f"log: of {log.engine}; expected a start-up log of {engine}")
    given = dict(options or {})
    match engine:
        case "vllm":
            from . import budget_vllm

            known(engine, given, budget_vllm.OPTIONS, own.OPTIONS)
            return budget_vllm.allowances(total, sizes, ranks, stages, given, log)
        case "sglang":
            from . import budget_sglang

            known(engine, given, budget_sglang.OPTIONS, own.OPTIONS)
            return budget_sglang.allowances(total, sizes, ranks, stages, given, log, driver_bytes or total)
        case "llamacpp":
            from . import budget_llamacpp

            known(engine, given, budget_llamacpp.OPTIONS, own.OPTIONS)
            return budget_llamacpp.allowances(sizes, given, log)
        case "transformers":
            known(engine, given, (), own.OPTIONS)
            return transformers(sizes)
        case "mlx":
            known(engine, given, ("tokens",), own.OPTIONS)
            return mlx(sizes, whole("tokens", given.get("tokens", 2048), 1))
        case _:
            known(engine, given, (), own.OPTIONS)
            return ()


def given_pool(engine: str, options: Mapping[str, Any]) -> int | None:
    """The bytes for sequence state on each rank where an option gives them (vLLM's kv_cache_memory_bytes), else None."""
    if engine != "vllm":
        return None
    from .budget_vllm import given_pool as given

    return given(options)


def transformers(sizes: Sizes) -> tuple[Allowance, ...]:
    """Transformers sets nothing aside; what a prefill of 2,048 tokens holds in a layer, its last logits, and the context."""
    tokens = 2048
    layer = (
        tokens * sizes.element * (4 * sizes.hidden + 3 * max(sizes.intermediate, sizes.experts * sizes.expert_width))
    )
    logits = sizes.vocabulary * (sizes.element + 4)
    return (
        Allowance(
            name=ACTIVATIONS,
            bytes=layer + logits,
            why=f"assumed: one layer of {tokens:,} tokens of prefill, and the last one's logits",
        ),
        Allowance(name="CUDA context", bytes=CONTEXT, why="assumed: driver and runtime of one process"),
    )


def mlx(sizes: Sizes, tokens: int) -> tuple[Allowance, ...]:
    """MLX-LM sets nothing aside; what a forward of so many tokens holds in a layer, above weights and caches."""
    each, once = activations(sizes)
    why = f"assumed: one layer of {tokens:,} tokens at once, and the last one's logits"
    return (Allowance(name=ACTIVATIONS, bytes=tokens * each + once, why=why),)


def activations(sizes: Sizes) -> tuple[int, int]:
    """Bytes of each token of a forward under MLX-LM, and of its last one's logits.

    Two feed-forward widths, eighteen hidden states and four widths of the heads to a token: what mx.get_peak_memory says on a CPU
    (mlx 0.32.4, Llamas of 512 to 1,024 wide, 512 to 1,024 tokens at once), whose norms are in fp32. Scores of attention are not in
    it: on a Mac they are never whole, for heads of 64, 80 and 128 (mlx.core.fast.scaled_dot_product_attention).
    """
    fed = max(sizes.intermediate, sizes.experts * sizes.expert_width)
    numbers = 2 * fed + 18 * sizes.hidden + 4 * max(sizes.hidden, sizes.latent_heads)
    return sizes.element * numbers, sizes.vocabulary * (sizes.element + 4)
