"""Layers to pipeline stages, each with a block size of its own: one spec per layer that keeps anything, and the stage of each.

Files cited are of vLLM 0.33.0, beneath vllm/.
"""

from __future__ import annotations

from ..base import Refused
from ..layers import ChunkedAttention, CompressedAttention, SparseIndexer, parts
from .ranks import stage_ends
from .vllm_specs import TURBOQUANT, Options, Shape, Sizer, is_attention, is_state, slides_latent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..layers import Layer
    from .vllm_blocks import Spec


def specs_of(
    layers: Sequence[Layer], options: Options, shape: Shape, drafts: int, numbered: int
) -> tuple[list[Spec], list[int]]:
    """One spec per layer that keeps anything, at the block size of its pipeline stage, and the stage of each.

    Every worker chooses its block size by its own stage's layers (v1/executor/multiproc_executor.py). drafts: modules of
    multi-token prediction, which attend as the last layer does that attends, and run in the last stage. numbered: how many
    layers the config says there are.
    """
    ends = stage_ends("vllm", len(layers), options.pp)
    packs = options.kv_dtype in TURBOQUANT and not shape.windowed
    skipped = boundary(layers, numbered) if packs else frozenset()
    states = states_of(layers, shape)
    padded = any(slides_latent(part) for layer in layers for part in parts(layer))
    wishes: set[bool] = set()
    specs: list[Spec] = []
    ranks: list[int] = []
    first = 0
    for rank, end in enumerate(ends):
        stage = range(first, end)
        first = end
        mine = [layers[index] for index in stage]
        module: list[Layer] = []
        if drafts and rank == options.pp - 1:
            module = [
                # DeepSeek-V4's module compresses nothing (models/deepseek_v4/nvidia/mtp.py).
                part.replace(ratio=0) if isinstance(part, CompressedAttention) else part
                for part in parts(draft_of(layers))
                if not is_state(part)
            ]
        plain = [index in skipped for index in stage]
        if any(
            left and isinstance(part, ChunkedAttention)
            for layer, left in zip(mine, plain, strict=True)
            for part in parts(layer)
        ):
            raise Refused(
                "Unknown TurboQuant cache dtype: 'auto'. A layer that attends in chunks can't be left as it is."
            )
        wishes.add(wants_layout(mine, [packs and not left for left in plain], padded))
        sizer = Sizer([*mine, *module], states, options, shape, mixed(mine, plain) if skipped else None)
        known: dict[tuple[int, bool], tuple[Spec, ...]] = {}
        for layer, left in zip(mine, plain, strict=True):
            key = (id(layer), left)
            if key not in known:
                known[key] = tuple(spec for part in parts(layer) for spec in sizer.spec(part, plain=left) if spec.row)
            specs.extend(known[key])
        specs.extend([spec for part in module for spec in sizer.spec(part)] * drafts)
        ranks.extend([rank] * (len(specs) - len(ranks)))
    if len(wishes) > 1:
        raise Refused("Workers disagree on supported KV cache layouts: layers of a kind are missing in some stages.")
    return specs, ranks


def draft_of(layers: Sequence[Layer]) -> Layer:
    """The layer that modules of multi-token prediction are like: the last that attends, or slides where latents do."""
    attend = [layer for layer in layers if any(is_attention(part) for part in parts(layer))]
    return next((layer for layer in reversed(attend) if slides_latent(layer)), attend[-1])


def wants_layout(stage: Sequence[Layer], packed: Sequence[bool], padded: bool) -> bool:
    """Whether a backend of the stage reads blocks of some layouts only (supported_kv_cache_layouts): turboquant's, compressed
    attention's indexer, latents that are padded to those of a window."""
    return any(
        (packs and is_attention(part))
        or (isinstance(part, CompressedAttention) and part.index_head_dim > 0)
        or (padded and isinstance(part, SparseIndexer))
        for layer, packs in zip(stage, packed, strict=True)
        for part in parts(layer)
    )


def states_of(layers: Sequence[Layer], shape: Shape) -> list[Layer]:
    """The kinds of recurrent state of the whole model."""
    pieces = {id(part): part for layer in layers for part in parts(layer)}
    return [part for part in pieces.values() if is_state(part) and not shape.windowed]


def mixed(stage: Sequence[Layer], plain: Sequence[bool]) -> bool:
    """Whether the first layer of a stage that attends is one that turboquant leaves as it is."""
    attends = (left for layer, left in zip(stage, plain, strict=True) if any(map(is_attention, parts(layer))))
    return next(attends, True)


def boundary(layers: Sequence[Layer], numbered: int) -> frozenset[int]:
    """Layers that turboquant leaves in the model's dtype (get_boundary_skip_layers): the first and last two, of fewer than four
    the first and last; none beside states."""
    kinds = [any(is_state(part) for part in parts(layer)) for layer in layers]
    if not any(is_attention(part) for layer in layers for part in parts(layer)):
        return frozenset()
    if any(kinds):
        if not any(
            is_attention(part) for layer, state in zip(layers, kinds, strict=True) if not state for part in parts(layer)
        ):
            raise Refused(
                "TurboQuant KV cache requires identifiable full-attention layers, but none were found in the hybrid model config."
            )
        return frozenset()
    side = min(2, numbered // 2)
    return frozenset({*range(side), *range(numbered - side, numbered)})
