"""The figure that memcurve grew from: MHA, Gated DeltaNet without convolution, and their 3 : 1 mix, as float64.

After plot_memory_estimates_gated_deltanet.py of "Build a Large Language Model From Scratch" (rasbt/LLMs-from-scratch).
The mix has n_layers / 4 attention layers even where that is a fraction; so each subject carries the share of the
integer curve that it stands for, an exact rational. Only this figure has fractions of layers.
"""

from __future__ import annotations

from fractions import Fraction

from .base import BadConfig, show
from .curve import MemoryCurve
from .engines import logical
from .export import Subject
from .layers import FullAttention, GatedDeltaNet
from .terms import Term
from .units import dtype_bytes, dtype_name

LABELS = (
    "Full Attention (MHA) KV cache",
    "All Gated DeltaNet (no conv)",
    "3:1 layer ratio (3 DeltaNet : 1 Full Attention)",
)
DTYPES = ("fp32", "bf16", "fp16", "fp8", "int8")


class SeedSubject(Subject):
    """A curve in the seed's float64."""

    def values(self, contexts: list[int], batch: int) -> list[float]:
        """Float64, rounded where the script rounds: per layer, times the layers, then the sum."""
        terms = self.curve.terms
        if len(terms) == 1:
            return [float(terms[0].bytes_at(context, batch)) for context in contexts]
        found = []
        for context in contexts:
            per_layer = [term.slot_bytes * term.slots_at(context) * batch for term in terms]
            products = [
                float(size) * float(term.layers * self.share) for size, term in zip(per_layer, terms, strict=True)
            ]
            found.append(sum(products[1:], products[0]))
        return found


def subjects(emb_dim: int, n_heads: int, n_layers: int, dtype: str) -> list[Subject]:
    """The three curves. BadConfig for sizes below 1 (n_layers: 0) and for a dtype that is none."""
    for name, value, least in (("emb_dim", emb_dim, 1), ("n_heads", n_heads, 1), ("n_layers", n_layers, 0)):
        if value < least:
            raise BadConfig(f"{name}: {show(value)}; expected an integer of {least} or more")
    name = dtype_name(dtype)
    e, head = dtype_bytes(name), emb_dim // n_heads
    attention = FullAttention(kv_heads=n_heads, head_dim=head, v_head_dim=head)
    delta = GatedDeltaNet(key_heads=n_heads, value_heads=n_heads, key_dim=head, value_dim=head, conv_kernel=None)

    def term(layer: FullAttention | GatedDeltaNet, layers: int) -> Term:
        ((tensors, slots),) = logical.keeps(layer, e, e)
        return Term(kind=layer.kind, layers=layers, tensors=tensors, slots=slots)

    def curve(label: str, *terms: Term) -> MemoryCurve:
        return MemoryCurve(name=label, engine="logical", dtype=name, terms=terms)

    whole = n_layers % 4 == 0
    quarter, rest = (n_layers // 4, n_layers // 4 * 3) if whole else (n_layers, 3 * n_layers)
    return [
        SeedSubject(name=LABELS[0], curve=curve(LABELS[0], term(attention, n_layers))),
        SeedSubject(name=LABELS[1], curve=curve(LABELS[1], term(delta, n_layers))),
        SeedSubject(
            name=LABELS[2],
            curve=curve(LABELS[2], term(attention, quarter), term(delta, rest)),
            share=1 if whole else Fraction(1, 4),
        ),
    ]
