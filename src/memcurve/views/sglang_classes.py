"""The architectures that SGLang 0.5.23 has classes for, and which of them it treats how.

Sources, under sglang/srt: models/ (the registry), configs/model_config.py, configs/hybrid_arch.py, arg_groups/overrides.py.
"""

from __future__ import annotations

# Architectures of the registry (EntryClass in models/*.py) that generate, without drafts. Its wrapper of Transformers'
# own implementations, to which it turns for others, is not described.
ARCHITECTURES = frozenset(
    """
    AfmoeForCausalLM ApertusForCausalLM ArceeForCausalLM BaichuanForCausalLM
    BailingMM2NativeForConditionalGeneration BailingMMNativeForConditionalGeneration BailingMoEForCausalLM
    BailingMoeForCausalLM BailingMoeV2ForCausalLM BailingMoeV2_5ForCausalLM BailingMoeV3ForCausalLM
    BailingMoeV3VLForConditionalGeneration BeamForCausalLM BertModel ChatGLMModel Cohere2ForCausalLM
    Cohere2MoeForCausalLM Cohere2VisionForConditionalGeneration CohereForCausalLM Contriever
    Cosmos3EdgeForConditionalGeneration Cosmos3ForConditionalGeneration DFlashLagunaForCausalLM DbrxForCausalLM
    DeciLMForCausalLM DeepseekForCausalLM DeepseekOCRForCausalLM DeepseekV2ForCausalLM DeepseekV32ForCausalLM
    DeepseekV3ForCausalLM DeepseekV4ForCausalLM DeepseekVL2ForCausalLM DiffusionGemmaForBlockDiffusion
    Dots3NoteForCausalLM DotsOCRForCausalLM DotsVLMForCausalLM Ernie4_5_ForCausalLM Ernie4_5_MoeForCausalLM
    Ernie4_5_VLMoeForConditionalGeneration Exaone4ForCausalLM ExaoneForCausalLM ExaoneMoEForCausalLM
    ExaoneMoeForCausalLM FalconH1ForCausalLM FalconMambaForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM
    GPTJForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM Gemma3ForConditionalGeneration Gemma3nForCausalLM
    Gemma3nForConditionalGeneration Gemma4ForCausalLM Gemma4ForConditionalGeneration
    Gemma4UnifiedForConditionalGeneration GemmaForCausalLM GigaChat35ForCausalLM Glm4ForCausalLM Glm4MoeForCausalLM
    Glm4MoeLiteForCausalLM Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration
    Glm5NextForConditionalGeneration GlmAsrForConditionalGeneration GlmImageForConditionalGeneration
    GlmMoeDsaForCausalLM GlmOcrForConditionalGeneration GptOssForCausalLM GraniteForCausalLM GraniteMoeForCausalLM
    GraniteMoeHybridForCausalLM GraniteMoeSWAForCausalLM GraniteMoeSharedForCausalLM GraniteSWAForCausalLM
    Grok1ForCausalLM Grok1ModelForCausalLM HYV3ForCausalLM HYV4ForCausalLM HrmTextForCausalLM
    HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM IQuestCoderForCausalLM IQuestLoopCoderForCausalLM
    IQuestQ1ForCausalLM InklingForConditionalGeneration InternLM2ForCausalLM InternLM3ForCausalLM
    InternS1ForConditionalGeneration InternS1ProForConditionalGeneration InternS2MobiusForConditionalGeneration
    InternS2PreviewForConditionalGeneration InternVLChatModel JetNemotronForCausalLM JetVLMForConditionalGeneration
    K2HorizonForCausalLM KimiK25ForConditionalGeneration KimiK3ForConditionalGeneration KimiK3LinearForCausalLM
    KimiLinearForCausalLM KimiVLForConditionalGeneration LLaDA2MoeModelLM LagunaForCausalLM Lfm2BidirectionalModel
    Lfm2ForCausalLM Lfm2MoeForCausalLM Lfm2VlForConditionalGeneration LightOnOCRForConditionalGeneration
    Llama4ForCausalLM Llama4ForConditionalGeneration LlamaForCausalLM LlavaForConditionalGeneration
    LlavaLlamaForCausalLM LlavaMistralForCausalLM LlavaQwenForCausalLM LlavaVidForCausalLM
    LocateAnythingForConditionalGeneration LongcatFlashForCausalLM Mamba2ForCausalLM MambaForCausalLM
    MellumForCausalLM MiDashengLMModel MiMoForCausalLM MiMoV2ASRForCausalLM MiMoV2FlashForCausalLM MiMoV2ForCausalLM
    MiniCPM3ForCausalLM MiniCPMForCausalLM MiniCPMO MiniCPMSALAForCausalLM MiniCPMV
    MiniCPMV4_6ForConditionalGeneration MiniCPMV4_7ForConditionalGeneration MiniMaxM2ForCausalLM
    MiniMaxM3SparseForCausalLM MiniMaxM3SparseForConditionalGeneration Ministral3ForCausalLM
    Mistral3ForConditionalGeneration MistralForCausalLM MistralLarge3ForCausalLM MistralModel MixtralForCausalLM
    MllamaForConditionalGeneration MossVLForConditionalGeneration MultiModalityCausalLM MuseGlimmerForCausalLM
    MuseGlimmerForConditionalGeneration MuseSparkForConditionalGeneration NVILAForConditionalGeneration
    NVILALiteForConditionalGeneration NanbeigeForCausalLM NemotronHForCausalLM NemotronHPuzzleForCausalLM
    NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 NemotronH_Omni_Reasoning_V3 OPTForCausalLM
    Olmo2ForCausalLM OlmoForCausalLM OlmoeForCausalLM OrionForCausalLM POINTSV15ChatModel
    PaddleOCRVLForConditionalGeneration PersimmonForCausalLM Phi3ForCausalLM Phi3SmallForCausalLM Phi4MMForCausalLM
    PhiForCausalLM PhiMoEForCausalLM PixtralForConditionalGeneration QWenLMHeadModel QuantMixtralForCausalLM
    Qwen2AudioForConditionalGeneration Qwen2ForCausalLM Qwen2MoeForCausalLM Qwen2VLForConditionalGeneration
    Qwen2_5_VLForConditionalGeneration Qwen3ASRForConditionalGeneration Qwen3ForCausalLM Qwen3Model
    Qwen3MoeForCausalLM Qwen3NextForCausalLM Qwen3OmniMoeForConditionalGeneration Qwen3VLForConditionalGeneration
    Qwen3VLMoeForConditionalGeneration Qwen3_5ForCausalLM Qwen3_5ForConditionalGeneration Qwen3_5MoeForCausalLM
    Qwen3_5MoeForConditionalGeneration Qwen4ExpForConditionalGeneration SDARForCausalLM SDARMoeForCausalLM
    Sarashina2VisionForCausalLM SarvamMLAForCausalLM SarvamMoEForCausalLM SolarForCausalLM Spark2_5ForCausalLM
    StableLmForCausalLM Starcoder2ForCausalLM Step3VLForConditionalGeneration Step3p5ForCausalLM
    Step3p7ForConditionalGeneration StepVLForConditionalGeneration TeleFLMForCausalLM UnlimitedOCRForCausalLM
    VoxtralForConditionalGeneration WhisperForConditionalGeneration XLMRobertaModel XllmForCausalLM
    XverseForCausalLM XverseMoeForCausalLM YiVLForCausalLM ZayaForCausalLM
    """.split()
)
# is_hybrid_swa_model, and the config classes that say it themselves
SLIDING = frozenset(
    """
    BeamForCausalLM Llama4ForConditionalGeneration GptOssForCausalLM GraniteSWAForCausalLM GraniteMoeSWAForCausalLM
    IQuestQ1ForCausalLM MiMoV2ForCausalLM MiMoV2FlashForCausalLM Step3p5ForCausalLM Step3p7ForConditionalGeneration
    Gemma4ForCausalLM Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration
    DiffusionGemmaForBlockDiffusion LagunaForCausalLM MellumForCausalLM MuseGlimmerForCausalLM
    MuseGlimmerForConditionalGeneration MuseSparkForConditionalGeneration InklingForConditionalGeneration
    UnlimitedOCRForCausalLM Dots3NoteForCausalLM Spark2_5ForCausalLM
    """.split()
)
# ModelConfig.is_hybrid_swa_compress: sliding layers are allocated with sizes of their own, in others with those of full ones
OWN_SLIDING_SIZES = frozenset(
    """
    MiMoV2ForCausalLM MiMoV2FlashForCausalLM Gemma4ForCausalLM Gemma4ForConditionalGeneration
    InklingForConditionalGeneration Gemma4UnifiedForConditionalGeneration DiffusionGemmaForBlockDiffusion
    Dots3NoteForCausalLM
    """.split()
)
# Sliding layers whose model class has no get_attention_sliding_window_size: the window of the config, not one less
WHOLE_WINDOW = frozenset(
    """
    Llama4ForConditionalGeneration UnlimitedOCRForCausalLM GraniteSWAForCausalLM GraniteMoeSWAForCausalLM
    IQuestQ1ForCausalLM LagunaForCausalLM MiMoV2ForCausalLM MiMoV2FlashForCausalLM Step3p5ForCausalLM
    Step3p7ForConditionalGeneration Dots3NoteForCausalLM Spark2_5ForCausalLM
    """.split()
)
# Of these, the ones that slide only if the config has a sliding layer; the others are refused without one
SLIDING_IF_ANY = frozenset(
    "BeamForCausalLM LagunaForCausalLM MuseSparkForConditionalGeneration IQuestQ1ForCausalLM Spark2_5ForCausalLM".split()
)
# mambaish_config: architectures whose states have slots (the config classes of configs/hybrid_arch.py)
STATEFUL = frozenset(
    """
    FalconH1ForCausalLM NemotronHForCausalLM NemotronHPuzzleForCausalLM NemotronH_Nano_VL_V2
    NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Omni_Reasoning_V3 Lfm2ForCausalLM Lfm2MoeForCausalLM
    Lfm2VlForConditionalGeneration ZayaForCausalLM Mamba2ForCausalLM MambaForCausalLM FalconMambaForCausalLM
    InklingForConditionalGeneration GraniteMoeHybridForCausalLM Qwen3NextForCausalLM Qwen3_5ForConditionalGeneration
    Qwen3_5MoeForConditionalGeneration Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM InternS2PreviewForConditionalGeneration
    InternS2MobiusForConditionalGeneration MiniCPMV4_6ForConditionalGeneration MiniCPMV4_7ForConditionalGeneration
    JetNemotronForCausalLM JetVLMForConditionalGeneration KimiLinearForCausalLM KimiK3LinearForCausalLM
    KimiK3ForConditionalGeneration BailingMoeV2_5ForCausalLM BailingMoeV3ForCausalLM
    BailingMoeV3VLForConditionalGeneration Glm5NextForConditionalGeneration GigaChat35ForCausalLM
    Qwen4ExpForConditionalGeneration MiniCPMSALAForCausalLM
    """.split()
)
# _MAMBA_EXTRA_BUFFER_ARCHS (arg_groups/overrides.py)
EXTRA_BUFFER = frozenset(
    """
    KimiLinearForCausalLM Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration Qwen3_5MoeForCausalLM
    Qwen3_5ForCausalLM Qwen3NextForCausalLM Qwen4ExpForConditionalGeneration InternS2PreviewForConditionalGeneration
    MiniCPMV4_6ForConditionalGeneration MiniCPMV4_7ForConditionalGeneration BailingMoeV2_5ForCausalLM
    BailingMoeV3ForCausalLM BailingMoeV3VLForConditionalGeneration FalconH1ForCausalLM GraniteMoeHybridForCausalLM
    Glm5NextForConditionalGeneration NemotronHForCausalLM NemotronHPuzzleForCausalLM NemotronH_Omni_Reasoning_V3
    KimiK3ForConditionalGeneration InklingForConditionalGeneration
    """.split()
)
# Config classes that read mamba_ssm_dtype (mamba2_state_dtype(self)); the others keep fp32
READS_STATE_DTYPE = frozenset(
    """
    FalconH1ForCausalLM NemotronHForCausalLM NemotronHPuzzleForCausalLM NemotronH_Nano_VL_V2
    NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Omni_Reasoning_V3 Qwen3NextForCausalLM Qwen3_5ForConditionalGeneration
    Qwen3_5MoeForConditionalGeneration Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM InternS2PreviewForConditionalGeneration
    InternS2MobiusForConditionalGeneration MiniCPMV4_6ForConditionalGeneration MiniCPMV4_7ForConditionalGeneration
    JetNemotronForCausalLM JetVLMForConditionalGeneration GigaChat35ForCausalLM Qwen4ExpForConditionalGeneration
    """.split()
)
# is_deepseek_dsa: architectures whose indexers SGLang runs
SPARSE = frozenset(
    """
    DeepseekV3ForCausalLM DeepseekV32ForCausalLM MistralLarge3ForCausalLM PixtralForConditionalGeneration
    GlmMoeDsaForCausalLM Glm5NextForConditionalGeneration LongcatFlashForCausalLM Dots3NoteForCausalLM HYV4ForCausalLM
    """.split()
)
# Classes with pipeline stages (start_layer); in the others every rank would keep all layers, and none passes states on
STAGED = frozenset(
    """
    ApertusForCausalLM ArceeForCausalLM BailingMoEForCausalLM BailingMoeForCausalLM BailingMoeV2ForCausalLM
    BailingMoeV2_5ForCausalLM BailingMoeV3ForCausalLM BeamForCausalLM Cosmos3EdgeForConditionalGeneration
    Cosmos3ForConditionalGeneration DeepseekV2ForCausalLM DeepseekV32ForCausalLM DeepseekV3ForCausalLM
    DeepseekV4ForCausalLM Exaone4ForCausalLM ExaoneMoEForCausalLM ExaoneMoeForCausalLM Glm4ForCausalLM
    Glm4MoeForCausalLM Glm4MoeLiteForCausalLM Glm5NextForConditionalGeneration GlmMoeDsaForCausalLM
    GptOssForCausalLM GraniteMoeHybridForCausalLM IQuestCoderForCausalLM InternLM3ForCausalLM
    InternS1ProForConditionalGeneration InternS2MobiusForConditionalGeneration
    InternS2PreviewForConditionalGeneration K2HorizonForCausalLM KimiK25ForConditionalGeneration
    KimiK3ForConditionalGeneration KimiK3LinearForCausalLM KimiLinearForCausalLM LLaDA2MoeModelLM
    LagunaForCausalLM Llama4ForCausalLM LlamaForCausalLM MellumForCausalLM MiMoV2FlashForCausalLM
    MiMoV2ForCausalLM MiniMaxM3SparseForCausalLM MiniMaxM3SparseForConditionalGeneration Ministral3ForCausalLM
    MistralForCausalLM MistralLarge3ForCausalLM MixtralForCausalLM NanbeigeForCausalLM OPTForCausalLM
    Phi3ForCausalLM Qwen2ForCausalLM Qwen2MoeForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM
    Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration Qwen3_5ForCausalLM
    Qwen3_5ForConditionalGeneration Qwen3_5MoeForCausalLM Qwen3_5MoeForConditionalGeneration
    Qwen4ExpForConditionalGeneration SDARForCausalLM SDARMoeForCausalLM SarvamMLAForCausalLM SarvamMoEForCausalLM
    Spark2_5ForCausalLM Step3p5ForCausalLM TeleFLMForCausalLM XllmForCausalLM
    """.split()
)
# Classes that hand out whole heads only, where the others give several ranks the same one (ZayaCCA.__init__)
WHOLE_HEADS = frozenset({"ZayaForCausalLM"})
# _MAMBA_RADIX_CACHE_ARCHS, with those that the registry of linear attention and the overrides add
STATE_CACHE = frozenset(
    """
    KimiLinearForCausalLM KimiK3ForConditionalGeneration BailingMoeV2_5ForCausalLM BailingMoeV3ForCausalLM
    BailingMoeV3VLForConditionalGeneration Qwen3NextForCausalLM Qwen3_5MoeForConditionalGeneration
    InternS2PreviewForConditionalGeneration InternS2MobiusForConditionalGeneration Qwen3_5ForConditionalGeneration
    Qwen3_5MoeForCausalLM Qwen3_5ForCausalLM Qwen4ExpForConditionalGeneration MiniCPMV4_6ForConditionalGeneration
    MiniCPMV4_7ForConditionalGeneration NemotronHForCausalLM NemotronHPuzzleForCausalLM
    NemotronH_Omni_Reasoning_V3 FalconH1ForCausalLM JetNemotronForCausalLM JetVLMForConditionalGeneration
    Lfm2ForCausalLM Lfm2MoeForCausalLM ZayaForCausalLM Glm5NextForConditionalGeneration GigaChat35ForCausalLM
    InklingForConditionalGeneration
    """.split()
)
# Their configs divide states by tp_size, under attention DP too (configs/mamba.py, mamba2.py)
STATES_BY_ALL = frozenset({"MambaForCausalLM", "FalconMambaForCausalLM", "Mamba2ForCausalLM"})
# _auto_choose_speculative_params: steps, topk and draft tokens where they are not 3, 1 and 4
DRAFTS = dict.fromkeys(("LlamaForCausalLM", "Grok1ForCausalLM", "Grok1VForCausalLM"), (5, 4, 8))
# What is refused by the name of the class (parallel_hook.py, model_hook.py, model_overrides/iquest_q1.py)
_NEMOTRON = {"attn_cp_size": "Nemotron-H does not support --attn-cp-size > 1"}
REFUSES: dict[str, dict[str, str]] = {
    "NemotronHForCausalLM": _NEMOTRON,
    "NemotronHPuzzleForCausalLM": _NEMOTRON,
    "IQuestQ1ForCausalLM": {
        "pp_size": "IQuest Q1 does not support pipeline parallelism.",
        "attn_cp_size": "IQuestQ1 does not support context parallelism.",
        "attn_dp_size": "IQuest Q1 does not support DP attention.",
    },
    "InternS2MobiusForConditionalGeneration": {
        "pp_size": "Intern-S2-Mobius does not support: pipeline parallelism (--pp-size must be 1)."
    },
}
