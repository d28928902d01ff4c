"""Which part of a model a tensor belongs to, by its name as Transformers, vLLM, Mistral, MLX and GGUF files write it.

A name is taken apart: what stands before the layer's number, and the words after it. Each word is matched as a whole,
so nothing is filed by a piece of a word, and a name that no line knows is "other". Norms and biases inside a block
(q_norm, ssm_norm) are the block's; those between blocks are "norm".
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PARTS = (
    "embedding", "attention", "state", "mlp", "experts", "shared", "router", "norm", "head", "vision", "audio", "draft", "other",
)  # fmt: skip

# Wrappers around a text decoder, and the words that precede a layer's number.
WRAPPERS = "model language_model text_model transformer backbone thinker encoder decoder gpt_neox rwkv llm language module base_model enc dec"
LAYERS = "layers h blocks block blk layer"

# Whole branches, by their beginning: after `model.`, `thinker.`, `transformer.` or nothing.
BRANCHES = (
    ("draft", r"mtp|nextn|mtp_layers|mtp_block|mtp_emb_norm|mtp_hidden_norm|mtp_linear_proj"),
    (
        "audio",
        r"audio_tower|audio_encoder|audio_model|audio_projector|audio_adapter|embed_audio|apm|audio_projection_layer"
        r"|embed_tokens_extend\.audio_embed|sound_encoder|speech_encoder|talker|token2wav|code2wav|a|mm\.a",
    ),
    (
        "vision",
        r"visual|vision_tower|vision_model|vision_encoder|vision_embed_tokens|vision_language_adapter|vision_projector"
        r"|vision_adapter|vision|vit|vpm|img_processor|img_projection|embed_vision|multi_modal_projector|mm_projector|mlp1"
        r"|image_newline|image_projector|view_seperator|projector|patch_merger|pre_mm_projector_norm|resampler|connector|aligner"
        r"|embed_tokens_extend\.image_embed|v|mm",
    ),
)  # fmt: skip

# Outside layers, after the wrappers.
TOP = (
    (
        "norm",
        r"norm|norm_f|ln_f|ln_out|final_norm|final_layernorm|final_layer_norm|layer_norm|embedding_norm|word_embeddings_layernorm"
        r"|per_layer_projection_norm|per_layer_proj_norm|output_norm|token_embd_norm|embeddings\.(LayerNorm|layernorm|norm)|pre_ln",
    ),
    (
        "embedding",
        r"embed_tokens|embed_tokens_per_layer|embeddings?|word_embeddings?|tok_embeddings|wte|wpe|embed|embed_in|emb|shared|embed_positions"
        r"|position_embeddings?|embeddings\.(word|position|token_type)_embeddings|embedding\.(word|position)_embeddings"
        r"|token_embd|position_embd|token_types|per_layer_token_embd",
    ),
    ("head", r"lm_head|output|output_layer|embed_out|head|proj_out|score|classifier|cls"),
)  # fmt: skip

ATTENTION = "self_attn|self_attention|attn|attention|cross_attn|encoder_attn|SelfAttention|EncDecAttention"
MLP = "mlp|feed_forward|feedforward|ffn|mlp_block|DenseReluDense"
MOE = f"{MLP}|block_sparse_moe|moe|mixer"

# In a layer, after its number; the first line that matches.
LAYER = (
    (
        "shared",
        rf"({MOE})\.(shared_experts?|share_expert|shared_expert_gate|shared_mlp|shared_moe)|shared_mlp|shared_experts?|share_expert"
        r"|ffn_(gate|up|down|gate_up|gate_inp)_shexp",
    ),
    (
        "router",
        rf"({MOE})\.(gate|router|expert_bias|e_score_correction_bias|moe_statics)|gate|router"
        r"|ffn_gate_inp|exp_probs_b(_vl)?|ffn_gate_tid2eid",
    ),
    (
        "experts",
        rf"({MOE})\.(experts|switch_mlp|input_linear|output_linear|fc[12]_latent_proj)|experts"
        r"|ffn_(gate|up|down|gate_up|norm)_(ch)?exps|ffn_(gate|up|down)\.N|ffn_latent_(up|down)",
    ),
    (
        "state",
        r"mamba|mamba2|linear_attn|gated_deltanet|ssm|conv|shortconv|short_conv|mamba_decoder\.mamba|temporal_block\.(linear_x|linear_y|linear_out|conv_1d|rg_lru)"
        r"|mixer\.(in_proj|conv1d|x_proj|dt_proj|dt_bias|A_log|D|norm|out_proj|bcdt_proj|dt_layernorm|b_layernorm|c_layernorm|dt_norm_weight|B_norm_weight|C_norm_weight)"
        r"|ssm_\w+|shortconv_\w+|time_mix_\w+",
    ),
    (
        "attention",
        rf"{ATTENTION}|norm_attn_norm\.attn|temporal_block\.(q_proj|k_proj|v_proj|o_proj)|shared_transformer\.self_attn"
        r"|mixer\.(q_proj|k_proj|v_proj|o_proj|qkv_proj|Wqkv|inner_cross_attn|inner_attn|q_norm|k_norm|k_weight|q_weight)"
        r"|(cross_)?attn_(q|k|v|qkv|output|out|o|q_a|q_b|kv_a_mqa|kv_a|kv_b|k_b|v_b|kv|gate|rel_b|sinks|rot_embd|output_a|output_b|temperature_scale)"
        r"|(cross_)?attn_(q|k|kv|q_a|kv_a|sub|v|out)_norm|attn_q_a_norm|attn_compressor_\w+|indexer|indexer_\w+",
    ),
    (
        "mlp",
        rf"({MLP})|fc1|fc2|shared_transformer\.feed_forward|mixer\.(up_proj|down_proj|gate_proj)"
        r"|ffn_(gate|up|down|gate_up|act|sub_norm)|channel_mix_\w+",
    ),
    (
        "norm",
        r"\w*layernorm\w*|\w*layer_norm\w*|norm_?[0-9]?|\w+_norm(_?[0-9])?|ln[0-9_]\w*|norm_attn_norm\.norm_\d"
        r"|mamba_decoder\.input_layernorm|shared_transformer\.(input_layernorm|pre_ff_layernorm)",
    ),
)  # fmt: skip

# Tensors that tell what kind of layer they are in: the whole layer is a draft layer, or its attention is recurrent.
MARKS = (
    ("draft", None, r"eh_proj|enorm|hnorm|shared_head|nextn"),
    ("state", "attention", r"ssm_(beta|alpha|ba|f_a|f_b)|self_attn\.(A_log|forget_gate|output_gate)|attention\.(time_decay|g_norm)|attn\.(r_proj|x_r)"),
)  # fmt: skip


def whole(pattern: str) -> re.Pattern[str]:
    """Matches the pattern from the beginning, up to the end of a word."""
    return re.compile(rf"(?:{pattern})(?=\.|$)")


_wrappers = re.compile(rf"(?:(?:{WRAPPERS.replace(' ', '|')})\.)*")
_outer = re.compile(r"(?:(?:model|thinker|transformer)\.)*")
_layer = re.compile(rf"(?:(?:{LAYERS.replace(' ', '|')})\.N\.(?:layer\.N\.)?)")
_numbers = re.compile(r"(?<=\.)\d+(?=\.|$)")
_branches = [(part, whole(pattern)) for part, pattern in BRANCHES]
_top = [(part, whole(pattern)) for part, pattern in TOP]
_in_layer = [(part, whole(pattern)) for part, pattern in LAYER]
_marks = [(part, only, whole(pattern)) for part, only, pattern in MARKS]


def first(table: list[tuple[str, re.Pattern[str]]], name: str) -> str:
    return next((part for part, pattern in table if pattern.match(name)), "other")


def split(name: str) -> tuple[str, str]:
    """A name with N for its numbers, as what stands before the tensor's own words, with the layer, and those words."""
    start = match.end() if (match := _wrappers.match(name)) else 0
    layer = _layer.match(name, start)
    end = layer.end() if layer else start
    return name[:end], name[end:]


def part_of(name: str) -> str:
    """The part of one tensor by its own name, with N for its numbers."""
    outer = _outer.match(name)
    found = first(_branches, name[outer.end() if outer else 0 :])
    if found != "other":
        return found
    before, words = split(name)
    return first(_in_layer if "N" in before.split(".") else _top, words)


def parts(names: Iterable[str]) -> list[str]:
    """The part of each tensor of a model. Layers are looked at as a whole: what else is in a layer tells what it is."""
    names = list(names)
    forms = [_numbers.sub("N", name) for name in names]
    known = {form: (part_of(form), *split(form)) for form in dict.fromkeys(forms)}
    layers = [layer_of(name, known[form][1]) for name, form in zip(names, forms, strict=True)]
    marked: dict[str, tuple[str, str | None]] = {}
    for part, only, pattern in _marks:
        for layer, form in zip(layers, forms, strict=True):
            if layer and pattern.match(known[form][2]):
                marked.setdefault(layer, (part, only))
    found = []
    for layer, form in zip(layers, forms, strict=True):
        own = known[form][0]
        part, only = marked.get(layer, (own, None))
        found.append(part if only in (None, own) else own)
    if "experts" not in found:  # GraniteMoeHybrid without experts: its shared MLP is its MLP
        found = ["mlp" if part == "shared" else part for part in found]
    return found


def layer_of(name: str, before: str) -> str:
    """`model.layers.7.` of a tensor in it; empty outside layers. before: the same with N for its numbers."""
    words = before.split(".")[:-1]
    return ".".join(name.split(".")[: len(words)]) if "N" in words else ""
