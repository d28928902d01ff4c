"""llama.cpp's own view of a model (commit 0c1e57098): from the metadata of a GGUF file to the layers that keep state.

Sources, all in src/: llama-model.cpp (llama_model_base::load_hparams: what every architecture reads; create_memory:
which cache an architecture gets, and of which layers), models/*.cpp (load_arch_hparams), llama-hparams.cpp (what
follows), llama-kv-cache-*.cpp and llama-memory-*.cpp (layer filters). A config.json is turned into metadata first, as
the converter does it (convert.py).
"""

from __future__ import annotations

from ..base import BadConfig, NotDescribed, Refused, nearest, show
from ..gguf import MAX_LAYERS, Metadata
from ..layers import (
    RWKV,
    ChunkedAttention,
    CompressedAttention,
    CrossAttention,
    FullAttention,
    GatedDeltaNet,
    KimiDeltaAttention,
    LatentAttention,
    LightningAttention,
    Mamba,
    Mamba2,
    NoState,
    Parallel,
    ShortConv,
    SlidingAttention,
    SparseIndexer,
)
from . import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..config import Config
    from ..layers import Layer

# Architectures that llama.cpp knows by name (LLM_ARCH_NAMES, llama-arch.cpp), by what create_memory makes of them.
NO_MEMORY = (
    "bert jina-bert-v2 jina-bert-v3 nomic-bert nomic-bert-moe neo-bert eurobert wavtokenizer-dec modern-bert"
    " gemma-embedding dream llada llada-moe rnd1"
).split()
NOT_CAUSAL = "dream llada llada-moe rnd1 gemma-embedding".split()
PLAIN = (
    "llama llama4 deci falcon grok gpt2 gptneox mpt baichuan starcoder refact bloom stablelm qwen qwen2 qwen2moe qwen2vl"
    " qwen3 qwen3moe qwen3vl qwen3vlmoe phi2 phi3 phimoe plamo plamo3 codeshell orion internlm2 minicpm minicpm3 gemma"
    " gemma2 gemma3 gemma3n gemma4 starcoder2 maple xverse command-r cohere2 cohere2moe dbrx olmo olmo2 olmoe muse-glimmer"
    " openelm arctic deepseek deepseek2 deepseek2-ocr chatglm glm4 glm4moe bitnet t5 t5encoder jais jais2 nemotron exaone"
    " exaone4 exaone-moe granite granitemoe graniteswitch granite_swa chameleon plm bailingmoe bailingmoe2 dots1 arcee"
    " afmoe laguna ernie4_5 ernie4_5-moe hunyuan-moe hunyuan-dense hunyuan_vl hy_v3 smollm3 gpt-oss smallthinker seed_oss"
    " grovemoe apertus hrm_text minimax-m2 cogvlm pangu-embedded mistral3 mistral4 paddleocr mimo2 step35 spark2_5"
    " llama-embed maincoder talkie mellum nanbeige qwen3tts pockettts"
).split()
RECURRENT = "mamba mamba2 rwkv6 rwkv6qwen2 rwkv7 arwkv7".split()
HYBRID = (
    "jamba falcon-h1 plamo2 granitehybrid lfm2 lfm2moe nemotron_h nemotron_h_moe qwen3next kimi-linear bailingmoe3"
    " kimi-k3 glm5-next qwen35 qwen35moe qwen4exp minimax-01"
).split()
INDEXED = "minimax-m3 glm-dsa deepseek32 hy_v4 dots3note deepseek4".split()
NEEDS_OTHER = "gemma4-assistant eagle3 dflash".split()
KNOWN = (*NO_MEMORY, *PLAIN, *RECURRENT, *HYBRID, *INDEXED, *NEEDS_OTHER, "clip", "gptj")

# Which layers slide (load_swa_pattern, set_swa_pattern): of every n the last is dense, or the first where n is negative.
# With a window in the metadata only, always, or as the metadata lists them.
IF_WINDOW = {"afmoe": 4, "gemma3": 6, "laguna": -4, "mellum": 4, "olmo2": 4, "plamo3": 8, "smallthinker": -4}
ALWAYS = {"cohere2": 4, "cohere2moe": -4, "gemma3n": 5, "gpt-oss": 2, "muse-glimmer": 4, "exaone-moe": 4, "gemma2": 2}
LISTED = "granite_swa gemma4 mimo2 step35 spark2_5 maple dots3note".split()
# Recurrent are the layers without key-value heads, or all but each n-th.
BY_HEADS = "jamba granitehybrid lfm2 lfm2moe kimi-linear kimi-k3 bailingmoe3 plamo2 glm5-next nemotron_h nemotron_h_moe".split()
BY_INTERVAL = {"minimax-01": 8, "qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4}
# llm_arch_supports_rs_rollback (llama-arch.cpp); the others take n_rs_seq for 0.
ROLLBACK = (
    "kimi-k3 qwen35 qwen35moe qwen4exp deepseek4 glm5-next nemotron_h nemotron_h_moe lfm2 lfm2moe bailingmoe3".split()
)
MLA = "deepseek2 mistral4 deepseek32 glm-dsa bailingmoe3 glm5-next hy_v4 kimi-k3 kimi-linear dots3note".split()
# Which can run their draft layers (graph_mtp in models/*.cpp): a single one, or any number of them.
ONE_DRAFT = "bailingmoe3 cohere2moe deepseek2 deepseek32 deepseek4 glm-dsa glm4moe nemotron_h_moe qwen35 qwen35moe qwen3next".split()
DRAFTS = "hy_v3 mimo2 step35".split()
# Their graphs read no cache (build_attn_inp_no_cache), though they get one.
UNREAD = ("llama-embed", "t5encoder")
# GLM_5_2_DEFAULT_INDEXER_TYPES (models/glm-dsa.cpp): two full ones, then every fourth.
GLM_5_2_INDEXERS = [1, 1, *([1, 0, 0, 0] * 19)]
CSA_RATIO, HCA_RATIO = 4, 128  # llama-kv-cache-dsv4.cpp


class Hparams:
    """What llama.cpp's load_hparams makes of the metadata."""

    def __init__(self, keys: Metadata) -> None:
        self.keys, self.arch = keys, keys.architecture
        if self.arch not in KNOWN:
            hint = nearest(self.arch, KNOWN)
            raise NotDescribed(
                f"engine llamacpp: unknown model architecture: {show(self.arch)}"
                + (f"; nearest: {hint}" if hint else "")
            )
        if self.arch == "clip":
            raise NotDescribed("clip: no language model, but an encoder beside one (llama.cpp loads it with --mmproj)")
        # Why llama.cpp would not open the model; its layers may be known all the same.
        self.refusal: str | None = "unsupported model architecture: 'gptj'" if self.arch == "gptj" else None
        self.trained_context = keys.count("context_length")
        self.hidden = keys.count("features_length" if self.arch == "wavtokenizer-dec" else "embedding_length")
        self.all_layers = keys.count("block_count", least=1, most=MAX_LAYERS)
        self.drafts = keys.count("nextn_predict_layers", 0, most=self.all_layers)
        self.heads = keys.counts("attention.head_count", self.all_layers, [0] * self.all_layers)
        self.kv_heads = keys.counts("attention.head_count_kv", self.all_layers, self.heads)
        self.feed_forward = keys.counts("feed_forward_length", self.all_layers, [0] * self.all_layers)
        size = self.hidden // self.heads[0] if self.heads[0] else 0
        # Models without heads have no sizes, whatever the metadata says.
        self.key = keys.count("attention.key_length", size) if self.heads[0] else 0
        self.value = keys.count("attention.value_length", size) if self.heads[0] else 0
        self.sliding_key = keys.count("attention.key_length_swa", self.key)
        self.sliding_value = keys.count("attention.value_length_swa", self.value)
        self.rotary = keys.count("rope.dimension_count", self.key)
        if self.arch in ("llama", "deci", "falcon", "llama-embed") and self.heads[0] and self.rotary != self.key:
            self.refuse(f"error loading model hyperparameters: invalid n_rot: {self.rotary}, expected {self.key}")
        self.router = self.arch == "graniteswitch"
        self._looped()
        self._latent()
        self._recurrent()
        self._sliding()
        self._sharing()
        self._indexers()
        self._sizes()

    def refuse(self, reason: str) -> None:
        self.refusal = self.refusal or reason

    def _sizes(self) -> None:
        # What load_arch_tensors (models/*.cpp) turns down by its sizes alone.
        arch, error = self.arch, "error loading model: "
        if arch in ("deepseek32", "glm-dsa", "dots3note", "hy_v4") and not self.mla:
            self.refuse(f"{error}{arch} architecture requires MLA")
        if arch == "deepseek4" and not set(self.ratios[: self.all_layers]) <= {0, CSA_RATIO, HCA_RATIO}:
            self.refuse(f"{error}DeepSeek-V4 loader only supports compression ratios 0, 4, and 128")
        if arch == "gemma4" and (self.key != self.value or self.sliding_key != self.sliding_value):
            self.refuse(f"{error}Gemma 4 requires n_embd_head_k == n_embd_head_v")
        if arch == "hy_v4" and self.keys.count("attention.indexer.top_k", 0) and self.full_indexer[:1] != [True]:
            self.refuse(f"{error}hy_v4: layer 0 must own an indexer, nothing precedes it to share")
        if arch == "mamba" and self.keys.count("ssm.inner_size") != 2 * self.hidden:
            self.refuse(f"{error}only an expansion factor of 2 is supported for now")

    @property
    def trunk(self) -> int:
        """Layers without the draft layers: n_layer()."""
        return self.all_layers - self.drafts

    def key_size(self, layer: int) -> int:
        return self.sliding_key if self.slides[layer] else self.key

    def value_size(self, layer: int) -> int:
        return self.sliding_value if self.slides[layer] else self.value

    def _looped(self) -> None:
        # A router's cache beside the layers (models/granite-switch.cpp); layers run several times (models/nanbeige.cpp).
        if self.router:
            self.all_layers, self.drafts = self.trunk + 1, 1
            if self.all_layers > MAX_LAYERS:
                self.keys.bad("block_count", self.trunk, f"less than {MAX_LAYERS}")
            self.heads = [*self.heads[: self.trunk], 1]
            self.kv_heads = [*self.kv_heads[: self.trunk], 1]
            self.feed_forward = [*self.feed_forward[: self.trunk], 0]
        elif self.arch == "nanbeige":
            loops, once = self.keys.count("num_loops", 1, least=1, most=MAX_LAYERS), self.trunk
            if loops > 1:
                if once * loops > MAX_LAYERS:
                    self.keys.bad("num_loops", loops, f"at most {MAX_LAYERS} layers in all")
                self.all_layers = once * loops
                for name in ("heads", "kv_heads", "feed_forward"):
                    setattr(self, name, getattr(self, name)[:once] * loops)

    def _latent(self) -> None:
        keys = self.keys
        self.mla = self.arch in MLA and all(keys.count(f"attention.{name}_length_mla", 0) for name in ("key", "value"))
        self.rank = keys.count("attention.kv_lora_rank", 0)
        if self.arch in ("kimi-k3", "glm5-next"):
            self.value = self.rank
        elif self.arch == "plamo2":
            # Read again, whatever the heads of the first layer.
            self.key = keys.count("attention.key_length", self.key)
            self.value = keys.count("attention.value_length", self.value)

    def _recurrent(self) -> None:
        keys, arch = self.keys, self.arch
        self.recurrent = [arch in RECURRENT or arch == "falcon-h1"] * self.all_layers
        if arch in BY_HEADS:
            self.recurrent = [
                not heads and (layer < self.trunk or arch == "glm5-next") for layer, heads in enumerate(self.kv_heads)
            ]
            if arch.startswith("nemotron_h"):
                self.recurrent = [on and not width for on, width in zip(self.recurrent, self.feed_forward, strict=True)]
        elif arch in BY_INTERVAL:
            every = keys.count("full_attention_interval", BY_INTERVAL[arch], least=1)
            computed = [int(layer < self.trunk and (layer + 1) % every != 0) for layer in range(self.all_layers)]
            self.recurrent = [bool(on) for on in keys.counts("attention.recurrent_layers", self.all_layers, computed)]

    def _sliding(self) -> None:
        keys, arch = self.keys, self.arch
        self.window, self.chunked = 0, False
        self.slides = [False] * self.all_layers
        given = keys.get("attention.sliding_window") and keys.count("attention.sliding_window")
        if arch in IF_WINDOW:
            self.window = keys.count("attention.sliding_window", 0)
            if self.window:
                self.slides = self._pattern(IF_WINDOW[arch])
            if self.window and arch == "smallthinker":
                self.window = 4096
        elif arch in ALWAYS:
            self.window = keys.count("attention.sliding_window", 4096 if arch == "gemma2" else None)
            self.slides = self._pattern(ALWAYS[arch])
        elif arch in LISTED:
            self.window = keys.count("attention.sliding_window")
            self.slides = self._listed()
        elif arch == "exaone4" and self.trunk == 64:
            self.window = keys.count("attention.sliding_window", 4096)
            self.slides = self._pattern(4)
        elif arch == "llama4" and given != 0:
            self.window, self.chunked = 8192, True
            self.slides = self._pattern(4)
        elif arch == "lfm2" and keys.count("attention.sliding_window", 0):
            self.window = keys.count("attention.sliding_window")
            self.slides = [layer < self.trunk and not on for layer, on in enumerate(self.recurrent)]
        elif arch == "deepseek4":
            self.window = keys.count("attention.sliding_window")
            self.slides = [True] * self.all_layers
        # The caches of these two have no such check.
        checked = arch not in ("lfm2", "dots3note")
        if checked and (self.window or arch in ALWAYS or arch in LISTED) and not any(self.slides):
            self.refuse("GGML_ASSERT(hparams.is_swa_any()) failed: a sliding window, and no layer that slides")

    def _listed(self) -> list[bool]:
        found = self.keys.items("attention.sliding_window_pattern")
        if found is None:
            self.keys.bad("attention.sliding_window_pattern", None, "an array, one truth value per layer")
        return [layer < len(found) and bool(found[layer]) for layer in range(self.all_layers)]

    def _pattern(self, every: int) -> list[bool]:
        """As the metadata lists them, or by an n of theirs or of the architecture's; n = 0: all slide."""
        given = self.keys.get("attention.sliding_window_pattern")
        if isinstance(given, list):
            return self._listed()
        n = abs(every) if given is None else self.keys.checked("attention.sliding_window_pattern", given)
        dense = 0 if every < 0 else n - 1
        return [layer < self.trunk and (n == 0 or layer % n != dense) for layer in range(self.all_layers)]

    def _sharing(self) -> None:
        # The last layers read the keys and values of the last sliding and the last dense one that keep theirs.
        self.own = self.all_layers
        if self.arch == "gemma3n":
            self.own = 20
        elif self.arch == "gemma4":
            self.own -= self.keys.count("attention.shared_kv_layers", 0, most=self.all_layers)
            if self.own < 2:
                self.refuse("GGML_ASSERT(hparams.n_layer_kv_from_start >= 2) failed")
                return
        # Draft layers are filtered out first.
        for layer in range(self.own, self.trunk or self.all_layers):
            source = self.own - (2 if self.slides[layer] else 1)
            if self.slides[source] != self.slides[layer]:
                self.refuse(f"GGML_ASSERT failed: layer {layer} reuses layer {source}, of the other kind")

    def _indexers(self) -> None:
        keys, arch = self.keys, self.arch
        self.index_size = keys.count("attention.indexer.key_length", 0)
        self.pool = keys.count("attention.indexer.kpool", 0) if arch == "glm5-next" else 0
        full = [1] * self.trunk
        if arch in ("hy_v4", "dots3note"):
            full = [0] * self.trunk
        elif arch == "glm-dsa" and self.trained_context >= 1048576:
            full = (GLM_5_2_INDEXERS + [0] * MAX_LAYERS)[: self.trunk]
        if arch in ("glm-dsa", "hy_v4", "glm5-next"):
            full = keys.counts("attention.indexer.types", self.trunk, full)
        elif arch == "dots3note":
            found = keys.items("attention.indexer.types")
            if found is None:
                keys.bad("attention.indexer.types", None, "an array, one truth value per layer")
            full = (found + [0] * self.trunk)[: self.trunk]
        self.full_indexer = [bool(on) for on in full]
        if arch == "deepseek4":
            ratios = keys.items("attention.compress_ratios")
            if ratios is None or len(ratios) < self.all_layers:
                keys.bad("attention.compress_ratios", ratios, f"{self.all_layers} numbers, one per layer")
            self.ratios = ratios
            if self.drafts and not keys.has_tensor(f"blk.{self.trunk}.nextn.eh_proj.weight"):
                # Files of before draft layers were converted count them and lack them (models/deepseek4.cpp).
                self.drafts = 0


class Reader:
    """Layers of memcurve's kinds from hparams. logical: as the model's own code has them, not as llama.cpp's caches do."""

    def __init__(self, hparams: Hparams, logical: bool = False) -> None:
        self.h, self.logical = hparams, logical

    def attention(self, layer: int) -> Layer:
        """One layer of llama_kv_cache: K and V, or K alone where all of it is MLA."""
        h = self.h
        heads, key, value = h.kv_heads[layer], h.key_size(layer), h.value_size(layer)
        window = h.window if h.slides[layer] else None
        if h.mla or (self.logical and h.arch in ("deepseek2", "minicpm3") and h.rank):
            rank = h.keys.count("attention.kv_lora_rank_swa", h.rank) if h.slides[layer] else h.rank
            if not h.mla:
                return LatentAttention(kv_lora_rank=rank, rope_head_dim=h.rotary)
            return latent(heads * key, rank, window)
        if self.logical and not heads * (key + value):
            return NoState()
        if window is None:
            # What Transformers makes of Falcon's keys and values before it caches them.
            repeated = h.heads[layer] if self.logical and h.arch == "falcon" and heads > 1 else 0
            return FullAttention(kv_heads=heads, head_dim=key, v_head_dim=value, repeated_to=repeated)
        if h.chunked:
            return ChunkedAttention(kv_heads=heads, head_dim=key, v_head_dim=value, chunk=window)
        return SlidingAttention(kv_heads=heads, head_dim=key, v_head_dim=value, window=window)

    def with_indexer(self, layer: int, indexed: bool) -> Layer:
        """Attention, and beside it the cache of its indexer: one key head (llama_kv_cache_dsa, _msa, llama_memory_hybrid_idx)."""
        h, own = self.h, self.attention(layer)
        if not indexed:
            return own
        # A sliding layer's row keeps its own size; pooled indexers keep key, gate and pooled key.
        size = h.sliding_key if h.slides[layer] and not self.logical else h.index_size
        times = 3 if h.pool and not self.logical else 1
        return Parallel(parts=(own, SparseIndexer(head_dim=size * times)))

    def state(self, layer: int) -> Layer:
        """One layer of llama_memory_recurrent, by n_embd_r and n_embd_s (llama-hparams.cpp)."""
        h = self.h
        keys, heads = h.keys, h.heads[0]
        if h.arch in ("rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"):
            size, shifts = keys.count("wkv.head_size", least=1), keys.count("token_shift_count", 2)
            if shifts == 2:
                return RWKV(hidden=h.hidden, heads=whole_part(keys, h.hidden, size), head_dim=size)
            state = LightningAttention(heads=whole_part(keys, h.hidden, size), head_dim=size, v_head_dim=size)
            shift = ShortConv(channels=h.hidden, conv_kernel=shifts + 1)
            return Parallel(parts=(shift, state))
        if h.arch in ("lfm2", "lfm2moe"):
            return ShortConv(channels=h.hidden, conv_kernel=keys.count("shortconv.l_cache", least=1))
        kernel = keys.count("ssm.conv_kernel", 0)
        if h.arch in ("kimi-linear", "kimi-k3", "bailingmoe3", "glm5-next"):
            size = keys.count("kda.head_dim", least=1)
            return KimiDeltaAttention(heads=heads, head_dim=size, conv_kernel=kernel or 4)
        if h.arch == "minimax-01":
            return LightningAttention(heads=heads, head_dim=h.key, v_head_dim=h.key)
        inner, size = keys.count("ssm.inner_size"), keys.count("ssm.state_size")
        groups = keys.count("ssm.group_count", 0 if h.arch in ("mamba", "jamba") else None)
        if h.arch in ("mamba", "jamba"):
            return Mamba(intermediate=inner, state_size=size, conv_kernel=kernel)
        ranks = keys.count("ssm.time_step_rank", least=1)
        width = whole_part(keys, inner, ranks)
        if h.arch not in BY_INTERVAL:
            return Mamba2(
                heads=ranks, head_dim=width, state_size=size, groups=groups, intermediate=inner, conv_kernel=kernel
            )
        delta = GatedDeltaNet(key_heads=groups, value_heads=ranks, key_dim=size, value_dim=width, conv_kernel=kernel)
        history = self.history(layer) if h.arch == "qwen4exp" else None
        return delta if history is None else Parallel(parts=(delta, history))

    def history(self, layer: int) -> Layer | None:
        """The convolution over n-gram embeddings of the layer that has them: ple_conv_state."""
        keys = self.h.keys
        if layer not in (keys.items("ple.layers") or ()):
            return None
        gram, kernel = keys.count("ple.ngram_size", least=2), keys.count("ple.conv_kernel", least=1)
        channels = keys.count("hyper_connection.count") * self.h.hidden
        return ShortConv(channels=channels, conv_kernel=kernel, columns=(kernel - 1) * gram)

    def compressed(self, layer: int) -> Layer:
        """One layer of llama_kv_cache_dsv4."""
        h = self.h
        ratio, size = h.ratios[layer], h.kv_heads[layer] * h.sliding_key
        if layer >= h.trunk or ratio not in (CSA_RATIO, HCA_RATIO):
            if self.logical:
                return SlidingAttention(kv_heads=1, head_dim=size, v_head_dim=size, window=h.window)
            return LatentAttention(kv_lora_rank=size, rope_head_dim=0, window=h.window)
        sparse = ratio == CSA_RATIO
        index = h.index_size if sparse else 0
        return CompressedAttention(head_dim=size, window=h.window, ratio=ratio, overlap=sparse, index_head_dim=index)

    def main(self, layer: int) -> Layer:
        """What one layer keeps in an ordinary context (create_memory)."""
        h, arch = self.h, self.h.arch
        trunk = layer < h.trunk
        if arch in NO_MEMORY:
            return NoState()
        if self.logical and not trunk:
            return NoState(why="a draft layer")
        if arch in RECURRENT:
            return self.state(layer) if trunk else NoState()
        if arch == "falcon-h1":
            return Parallel(parts=(self.attention(layer), self.state(layer))) if trunk else self.attention(layer)
        if arch in HYBRID:
            return self.hybrid(layer, trunk)
        if arch == "deepseek4":
            return self.compressed(layer)
        if arch == "minimax-m3":
            return self.with_indexer(layer, layer >= h.keys.count("leading_dense_block_count", 0))
        if arch == "hy_v4":
            sparse = h.keys.count("attention.indexer.top_k", 0) > 0
            if sparse and not trunk:
                raise Refused(f"llama_hparams::is_indexer_full: il ({layer}) out of bounds (n_layer: {h.trunk})")
            return self.with_indexer(layer, sparse and h.full_indexer[layer])
        if arch in INDEXED:
            return self.with_indexer(layer, h.full_indexer[layer]) if trunk else NoState(why="a draft layer")
        if arch == "gemma4-assistant":
            return NoState(why="reads the keys and values of the model that it drafts for")
        if layer >= h.own:
            return NoState(why="reads another layer's keys and values")
        if h.drafts and h.trunk and not trunk and not h.router:
            return NoState(why="a draft layer")
        return self.attention(layer)

    def hybrid(self, layer: int, trunk: bool) -> Layer:
        """One layer of llama_memory_hybrid, by the filters of its architecture."""
        h, arch = self.h, self.h.arch
        if arch.startswith("nemotron_h") and h.feed_forward[layer]:
            return NoState()
        if h.recurrent[layer]:
            return self.state(layer) if trunk else NoState()
        if not trunk and (arch in BY_INTERVAL or arch == "glm5-next"):
            return NoState(why="a draft layer")
        if arch == "glm5-next":
            return self.with_indexer(layer, h.full_indexer[layer])
        return self.with_indexer(layer, arch == "qwen4exp" and h.index_size > 0)

    def drafts(self) -> tuple[Layer, ...] | str:
        """What the layers keep in an MTP context, or why there is none."""
        h, arch = self.h, self.h.arch
        every = range(h.all_layers)
        if not h.drafts or h.router:
            return "context type MTP requested but model doesn't contain MTP layers"
        if arch == "glm5-next":
            return "failed to initialize the context: GLM5-Next NextN graph not implemented yet"
        if arch in ONE_DRAFT:
            if h.drafts > 1:
                return "GGML_ASSERT(hparams.n_layer_nextn == 1) failed: MTP currently only supports a single MTP block"
            if arch == "deepseek2" and not h.mla:
                return "GGML_ASSERT(hparams.is_mla()) failed: MTP requires MLA"
        elif arch not in DRAFTS:
            # Without a graph of its own the draft context gets the trunk's, which misses its layers in a plain cache.
            if (arch in PLAIN and arch not in UNREAD) or arch == "dots3note":
                return "failed to initialize the context: unordered_map::at"
            if arch not in UNREAD:
                return tuple(self.main(layer) for layer in every)
        return tuple(NoState(why="no draft layer") if layer < h.trunk else self.attention(layer) for layer in every)


def latent(size: int, rank: int, window: int | None) -> Layer:
    """A K row of `size` elements that holds a latent of `rank` and a rotary key."""
    rank = min(rank, size)
    return LatentAttention(kv_lora_rank=rank, rope_head_dim=size - rank, window=window)


def whole_part(keys: Metadata, size: int, part: int) -> int:
    if size % part:
        raise BadConfig(f"{keys.architecture}: {size} channels in parts of {part}; expected a whole number of parts")
    return size // part


def logical_layers(keys: Metadata) -> tuple[Layer, ...]:
    """The layers as the model's own code has them: one per decoder layer, without draft layers."""
    h = Hparams(keys)
    reader = Reader(h, logical=True)
    if h.arch == "phi3" and keys.count("attention.sliding_window", 0):
        # llama.cpp keeps all of it: "Phi SWA is currently disabled".
        h.window, h.slides = keys.count("attention.sliding_window"), [True] * h.all_layers
    layers = tuple(reader.main(layer) for layer in range(h.trunk))
    if h.arch != "t5":
        return layers
    # Decoder layers, which also attend over the encoder's output.
    size = {"kv_heads": h.kv_heads[0], "head_dim": h.key, "v_head_dim": h.value}
    both = Parallel(parts=(FullAttention(**size), CrossAttention(**size)))
    return (both,) * keys.count("decoder_block_count", h.trunk, least=1, most=MAX_LAYERS)


def view(layers: tuple[Layer, ...], dtype: str | None, source: Config | Metadata | None) -> View:
    """Cache types are f16 unless said otherwise, whatever the model's dtype. A pattern of layers is taken as it stands."""
    if source is None:
        return View(layers=layers, dtype="float16")
    if not isinstance(source, Metadata):
        from .convert import metadata

        source = metadata(source)
    h = Hparams(source)
    if h.refusal:
        raise Refused(h.refusal)
    if h.arch in NEEDS_OTHER:
        raise Refused(f"{h.arch} requires ctx_other to be set (a draft model, beside the context it drafts for)")
    reader, every = Reader(h), range(h.all_layers)
    facts: dict[str, Any] = {
        "trained_context": h.trained_context or "n_ctx and n_ctx_train cannot both be zero: no context_length is given",
        "widest_value": max(h.kv_heads[layer] * h.value_size(layer) for layer in every),
        "head_dims": tuple(dict.fromkeys((h.key_size(layer), h.value_size(layer)) for layer in range(h.trunk))),
        "one_type": h.mla or h.arch == "deepseek4",
        "own_streams": h.arch == "deepseek4",
        "rollback": h.arch in ROLLBACK,
        "flash_possible": h.arch != "grok",
        "causal": h.arch not in NOT_CAUSAL and source.data.get(f"{h.arch}.attention.causal") is not False,
        "mtp_layers": reader.drafts(),
    }
    if h.arch in INDEXED and not h.mla:
        # The indexer's cache has one head, and V rows that nothing uses (llama_kv_cache_msa, llama_kv_cache_dsa).
        facts["index_value"] = (h.value, max(h.value_size(layer) for layer in every))
    return View(layers=tuple(reader.main(layer) for layer in every), dtype="float16", facts=facts)
