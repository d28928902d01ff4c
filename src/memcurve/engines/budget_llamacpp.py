"""What llama.cpp 0c1e57098 needs of a GPU's memory beside weights and caches.

The compute buffer is what ggml's scheduler reserves for a graph of n_ubatch tokens (src/llama-context.cpp, sched_reserve):
the largest set of tensors that live at once, in fp32, and the masks. llama-server gives logits for as many tokens as it
has slots (tools/server/server-context.cpp, server_output_limits), other programs for a whole batch. common/fit.cpp leaves
fit_target free on each device after all of it (common/common.h, fit_params_target: 1024 MiB).

fit: a margin is left free; True by default.
fit_target: MiB of that margin; 1024 by default.
n_ctx: cells that a mask is made for; 131,072 by default.
n_seq_max: sequences, each with logits of its own, and without kv_unified with cells of its own.
n_outputs_max: tokens of a step that get logits; by default one a slot.
"""

from __future__ import annotations

from ..base import whole
from ..terms import compile_expr
from .allowances import CONTEXT, Allowance, MiB, flag, lacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..terms import Expr
    from .allowances import Measured, Sizes

OPTIONS = ("fit", "fit_target", "n_ctx", "n_seq_max", "n_outputs_max")
TARGET = 1024  # MiB
BUFFER = "compute buffer"
# Tokens of a mask where no context is said
CONTEXT_TOKENS = 131072


def allowances(sizes: Sizes, options: Mapping[str, Any], log: Measured | None) -> tuple[Allowance, ...]:
    if log is not None:
        if log.compute is None:
            raise lacks(log, '"compute buffer size"')
        compute = Allowance(name=BUFFER, bytes=log.compute.high, why=f"measured: {log.compute.text}")
    else:
        compute = compute_buffer(sizes, options)
    parts = [compute, Allowance(name="CUDA context", bytes=CONTEXT, why="assumed: driver and runtime of one process")]
    if flag(options, "fit", True):
        target = whole("fit_target", options.get("fit_target", TARGET))
        parts.append(
            Allowance(
                name="margin", bytes=target * MiB, why=f"--fit leaves {target:,} MiB free (--fit-target)", exact=True
            )
        )
    return tuple(parts)


def compute_buffer(sizes: Sizes, options: Mapping[str, Any]) -> Allowance:
    """The largest of `buffers`, for n_ctx cells and n_seq_max sequences."""
    sequences = whole("n_seq_max", options.get("n_seq_max", 1), 1)
    cells = -(
        -whole("n_ctx", options.get("n_ctx", CONTEXT_TOKENS), 1) // (1 if flag(options, "kv_unified") else sequences)
    )
    outputs = whole("n_outputs_max", options.get("n_outputs_max", options.get("n_seq_max", 4)), 1)
    found = [(compile_expr(size)(0, 1, 0), why) for size, why in buffers(sizes, options, cells, outputs)]
    size, why = max(found, key=lambda one: one[0])
    return Allowance(name=BUFFER, bytes=size, why=f"assumed: {why}, and a mask for {cells:,} cells")


def buffers(sizes: Sizes, options: Mapping[str, Any], cells: Expr, outputs: Expr) -> list[tuple[Expr, str]]:
    """What the buffer may be, of which the largest is it: tokens × the widest stage of a layer, the logits, or without flash
    attention the scores, each with a mask of tokens × cells.

    A bias of positions goes without flash attention (src/llama-graph.cpp, build_attn_mha): scores, bias and their sum live at
    once, the buckets beside the mask, and an encoder before the decoder gives logits of all tokens. Lightning attention
    (src/models/minimax-01.cpp) holds decays of heads × tokens² throughout, and in its layers scores and decays of as many, two of
    queries, keys and values together, and the output; it is reserved for one sequence (src/llama-context.cpp, sched_reserve).

    A stage counts five hidden states beside its own: a feed-forward's three halves; experts, each token to each of its
    own; heads of queries and of latents; a recurrence's inner states. A sixteenth is added for what that leaves out.
    cells, outputs: as expressions, so that they may follow from context and batch.
    """
    tokens = whole("n_ubatch", options.get("n_ubatch", 512), 1)
    plain = options.get("flash_attn") is False or sizes.biased
    decays = 4 * sizes.heads * tokens**2 if sizes.lightning else 0
    widths = stages(sizes)
    stage = max(widths, key=lambda name: widths[name])
    wide, inner = 4 * tokens * widths[stage], max(8 * sizes.hidden, widths.get("latents", 0))
    rows: Expr = tokens if sizes.biased else ("min", outputs, tokens)
    logits: Expr = ("add", ("mul", rows, 4 * sizes.vocabulary), 4 * tokens * 5 * sizes.hidden)
    found: list[tuple[Expr, str]] = [
        (wide, f"{tokens:,} tokens × {widths[stage]:,} numbers of {stage} in fp32"),
        (logits, f"logits of {sizes.vocabulary:,} for every sequence, beside {tokens:,} tokens"),
    ]
    if plain:
        scores: Expr = (
            "add",
            ("mul", cells, (3 if sizes.biased else 1) * 4 * tokens * sizes.heads),
            4 * tokens * inner,
        )
        found.append((scores, f"{tokens:,} tokens × {sizes.heads} heads of scores in fp32"))
    if decays:
        state = 4 * tokens * (7 * sizes.lightning + sizes.hidden) + 2 * decays
        found.append(
            (
                state,
                f"{tokens:,} tokens of lightning attention, with decays of {sizes.heads} heads × {tokens:,}² in fp32",
            )
        )
    mask: Expr = ("mul", cells, (8 if sizes.biased else 4 if plain else 2) * tokens)
    held: Expr = ("add", mask, decays) if decays else mask
    return [(("add", ("floor", ("mul", size, 17), 16), held), why) for size, why in found]


def stages(sizes: Sizes) -> dict[str, int]:
    """Numbers that a token holds at the widest point of each part of a layer."""
    hidden, experts, width = sizes.hidden, sizes.experts, sizes.expert_width
    found = {"feed-forward": 3 * sizes.intermediate + 5 * hidden}
    if experts:
        found["experts"] = max(3 * experts * width + 5 * hidden, 2 * experts * (hidden + width) + hidden)
    if sizes.latent_layers:
        found["latents"] = 2 * sizes.heads * sizes.latent_rank + 3 * sizes.latent_heads // 2 + 5 * hidden
    if sizes.recurrent:
        found["a recurrence"] = 16 * hidden
    return found
