"""What an engine sets aside of a GPU's memory, as records; `budget` fills them."""

from __future__ import annotations

from ..base import BadConfig, Record, nearest, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    class Figure(Protocol):
        """A size as a log prints it: everything from low up to high prints so (logs.Rounded)."""

        @property
        def text(self) -> str: ...
        @property
        def low(self) -> int: ...
        @property
        def high(self) -> int: ...


MiB, GiB = 2**20, 2**30
CONTEXT = 512 * MiB  # of a CUDA context: driver and runtime of one process, assumed


class Allowance(Record):
    """One thing set aside on a GPU beside weights and sequence state.

    why: the rule or the assumption in one phrase, with its numbers. exact: the engine's own rule gives it (such as
    gpu_memory_utilization); warns: it may keep the engine from starting. Else it is assumed, on the safe side of nine in ten of the recorded start-ups.
    """

    name: str
    bytes: int
    why: str
    exact: bool = False
    warns: bool = False


class Sizes(Record):
    """What the rules ask of a model; `sizes.sizes_of` reads it of a config or a GGUF file.

    intermediate: the widest dense feed-forward layer. experts: those of a token; expert_width: the width of one.
    latent_layers, latent_rank, latent_heads: MLA's layers, and kv_b_proj's shape there (rank × heads · (nope + v)).
    recurrent: whether layers keep states (Mamba, delta nets…); lightning: numbers that lightning attention's heads have of a token,
    0 without it. biased: whether attention adds a bias of positions, as T5's does. quantised: whether the checkpoint's linear layers are. vision: the picture encoder's layers and width, None without one.
    graphs_prefill: whether SGLang captures prefills of this class by default. tokens, sequences: max_num_batched_tokens and
    max_num_seqs as vLLM resolves them; 0 for other engines.
    """

    hidden: int
    vocabulary: int
    layers: int
    heads: int
    intermediate: int
    experts: int = 0
    expert_width: int = 0
    latent_layers: int = 0
    latent_rank: int = 0
    latent_heads: int = 0
    recurrent: bool = False
    lightning: int = 0
    biased: bool = False
    element: int = 2
    quantised: bool = False
    multimodal: bool = False
    vision: tuple[int, int] | None = None
    graphs_prefill: bool = True
    tokens: int = 0
    sequences: int = 0

    def absorbed(self, tp: int) -> int:
        """Bytes of a copy of kv_b_proj in every latent layer, on a rank of `tp`."""
        return self.latent_layers * self.latent_rank * (self.latent_heads // tp) * self.element


class Measured(Record):
    """What a start-up log says, of one GPU (the fullest, where ranks differ). Figures keep the log's rounding.

    total: of the GPU. utilization, fraction: gpu_memory_utilization, mem_fraction_static. requested: total × utilization.
    before: free before weights load. weights: as loaded. consumed: weights and everything else that stays. activations:
    peak above what stays. graphs: CUDA graphs as estimated before the pool is sized, or as captured; counted: whether they
    were taken off the pool. pool: for sequence state. compute: llama.cpp's compute buffer.
    """

    engine: str
    total: Figure | None = None
    utilization: float | None = None
    fraction: float | None = None
    requested: Figure | None = None
    before: Figure | None = None
    weights: Figure | None = None
    consumed: Figure | None = None
    activations: Figure | None = None
    graphs: Figure | None = None
    counted: bool = False
    pool: Figure | None = None
    compute: Figure | None = None


def share(name: str, value: Any, default: float) -> float:
    """A share of a GPU's memory, above 0 and up to 1."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise BadConfig(f"{name}: {show(value)}; expected a number above 0 and up to 1")
    return float(value)


def flag(options: Mapping[str, Any], name: str, default: bool = False) -> bool:
    value = options.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadConfig(f"{name}: {show(value)}; expected True or False")
    return value


def lacks(log: Measured, *needed: str) -> BadConfig:
    """A log that does not say what the engine's budget needs."""
    return BadConfig(f"log: no {' and no '.join(needed)}; expected them in a start-up log of {log.engine}")


def known(engine: str, options: Mapping[str, Any], own: tuple[str, ...], others: tuple[str, ...]) -> None:
    """BadConfig for an option that neither the budget nor the engine has."""
    for name in options:
        if name not in own and name not in others:
            hint = nearest(name, [*own, *others], 1)
            raise BadConfig(
                f"{name}: {show(options[name])}; not an option of engine {engine}, whose budget has {', '.join(own)}"
                + (f" (nearest: {hint})" if hint else "")
            )
