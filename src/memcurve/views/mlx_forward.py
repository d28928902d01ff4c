"""Sizes that a module of mlx_lm/models/ (MLX-LM 0.32.2) is built with, and that its first forward fails on: rotary positions
of an odd number of dims or of more than a head has (mlx.core.fast.rope), and more experts a token than there are.
"""

from __future__ import annotations

from ..base import Refused, show
from ..layers import CompressedAttention, FullAttention, LatentAttention, SlidingAttention, SparseIndexer, parts
from .mlx_checks import EXPERTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..config import Config
    from ..layers import Layer

# Modules that rotate nothing, or only under keys that are not followed here.
UNROTATED = frozenset(
    "gpt2 gpt_bigcode granitemoehybrid jamba kimi_k3 kimi_linear laguna muse_spark nemotron_h olmo_hybrid spark2_5 step3p5".split()
)
# Modules that rotate a share of each head, by the key that says how much; a dict of theirs may say it too.
SHARES = {
    "partial_rotary_factor": "bailing_moe_linear glm4 glm4_moe mimo_v2_flash minimax_m3_vl nemotron phi phi3 qwen3_5 qwen3_next solar_open stablelm bailing_moe",
    "rotary_pct": "gpt_neox",
}
IN_PARAMETERS = ("minimax_m3_vl", "qwen3_5")
# Modules that take the number of dims; of the last two only where it is given.
DIMS = ("gptj", "minimax", "phixtral", "bailing_moe", "minimax_m3_vl")
# Modules that rotate a part of each head that has a size of its own.
PARTS = (
    "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v41", "glm4_moe_lite", "glm_moe_dsa", "kimi_vl", "longcat_flash",
    "longcat_flash_ngram", "minicpm3", "mistral4", "youtu_llm", "bailing_hybrid", "bailing_moe_v3",
)  # fmt: skip
# Names for the experts that a token is given to.
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_top_k", "moe_topk", "top_k_experts")


def check(args: Config, layers: Sequence[Layer]) -> None:
    """Refused where a forward of the module fails on its sizes."""
    for size in sorted(_sizes(layers)):
        for dims in _rotated(args, size):
            if dims % 2:
                raise Refused(f"[rope] dims must be even but got {dims} (MLX-LM's {args.model_type}.py)")
            if dims > size:
                raise Refused(
                    f"[rope] dims must not exceed the input's last dimension ({size}) but got {dims} (MLX-LM's {args.model_type}.py)"
                )
    _experts(args)


def _sizes(layers: Sequence[Layer]) -> set[int]:
    """Widths of what is rotated: heads, the rotary keys beside latents, index keys."""
    found = set()
    for layer in set(layers):
        for part in parts(layer):
            if isinstance(part, FullAttention | SlidingAttention | CompressedAttention | SparseIndexer):
                found.add(part.head_dim)
            if isinstance(part, LatentAttention) and part.rope_head_dim:
                found.add(part.rope_head_dim)
            if isinstance(part, CompressedAttention) and part.index_head_dim:
                found.add(part.index_head_dim)
    return found


def _rotated(args: Config, size: int) -> Iterator[int]:
    """Dims of a head of this size that are rotated."""
    module = args.model_type
    given = args.own("rotary_dim") if module in DIMS else None
    if given is not None:
        # minimax_m3_vl.py rotates no more of its index keys than there is.
        yield args.count("rotary_dim", least=0) if module != "minimax_m3_vl" else min(args.count("rotary_dim"), size)
    elif module in PARTS:
        yield args.count("qk_rope_head_dim", least=0, default=0)
    elif module == "qwen":
        yield args.ratio("hidden_size", "num_attention_heads")
    elif module == "recurrent_gemma":
        yield size // 2
    elif module not in UNROTATED:
        key = next((key for key, modules in SHARES.items() if module in modules.split()), None)
        nested = args.own("rope_parameters") if module in IN_PARAMETERS else None
        share = nested.get("partial_rotary_factor") if isinstance(nested, dict) else None
        if share is None and key is not None:
            share = args.number(key, 1.0)
        yield int(size * share) if isinstance(share, int | float) else size


def _experts(args: Config) -> None:
    """argpartition of the scores of all experts by those of a token."""
    chosen, number = (next((key for key in keys if isinstance(args.own(key), int)), None) for keys in (CHOSEN, EXPERTS))
    if chosen is None or number is None or args.model_type in ("longcat_flash", "longcat_flash_ngram"):
        return  # Longcat chooses among experts that do nothing as well.
    if args.model_type == "llama4" and args.own(chosen) != 1:
        raise Refused(f"Only 1 expert per token supported ({args.path}{chosen}: {show(args.own(chosen))})")
    of, least = args.own(number), 1 if args.model_type == "jamba" else 0
    dense = args.own("first_k_dense_replace")
    if of > least and args.own(chosen) > of and not (isinstance(dense, int) and dense >= args.layers):
        raise Refused(
            f"{args.path}{chosen}: {show(args.own(chosen))}; more than the experts that MLX-LM's {args.model_type}.py has, "
            f"{number} = {of} ([argpartition] Received invalid kth)"
        )
