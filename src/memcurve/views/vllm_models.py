"""Which models vLLM 0.33.0 has classes for, as data: by model type what a view needs, by architecture what the registry names."""

from __future__ import annotations

# Model types that vLLM runs with a class of its own, or drives through Transformers, and that are described.
RUNS = frozenset(
    """
    axk2 bailing_hybrid cohere_asr cohere_compass_text deepseek_ocr2_text emu3_text_model
    gpt-sw3 hrm_text inkling_text muse_spark_text plamo3 unlimited_ocr_text voxtral_realtime_text
    diffusion_gemma_text dots3_note_text higgs_audio_v2 kosmos_2_text_model kosmos_2_5_text_model mllama_text_model
    afmoe apertus arcee aria_text axk1 bailing_moe bailing_moe_v2 beam biogpt bitnet bloom chameleon chatglm cohere
    cohere2 cohere2_moe cosmos3_edge_text ctrl cwm dbrx deepseek deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4
    doge dots1 ernie4_5 ernie4_5_moe ernie4_5_vl_moe_text exaone exaone4 exaone_moe falcon falcon_h1 falcon_mamba
    flex_olmo gemma gemma2 gemma3_text gemma3n_text gemma4_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite
    glm4v_moe_text glm4v_text glm_moe_dsa glm_ocr_text gpt2 gpt_bigcode gpt_neox gpt_oss gptj granite
    granite4_vision_text granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared helium
    hunyuan_v1_dense hunyuan_v1_moe hunyuan_vl_text hy_v3 hy_v4 hyperclovax internlm2 internlm3 iquestcoder jais2
    jamba jetmoe kimi_k2 kimi_linear kolibri1 kyutai_speech_to_text laguna lfm2 lfm2_moe llama llama4_text
    longcat_flash mamba mamba2 mellum mimo mimo_v2_flash minicpm minicpm3 minimax_m2 minimax_m3_vl_text ministral
    ministral3 mistral mistral4 mixtral modernbert-decoder molmo2_text moshi muse_glimmer_text nanochat nemotron
    nemotron-nas nemotron_h olmo olmo2 olmo3 olmo_hybrid olmoe opt orion paddleocr_vl_text persimmon phi phi3
    phi4_multimodal phimoe qwen2 qwen2_5_omni_text qwen2_5_vl_text qwen2_moe qwen2_vl_text qwen3 qwen3_5_moe_text
    qwen3_5_text qwen3_moe qwen3_next qwen3_omni_moe_text qwen3_vl_moe_text qwen3_vl_text qwen4_exp_text seed_oss
    smollm3 solar solar_open stablelm starcoder2 step3_text step3p5 telechat3 vaultgemma whisper youtu zamba2 zaya
    """.split()
)
# Why others are not: model types, reason.
LACKS = {
    "aquila baichuan internlm Motif motif phi3small phi4flash plamo2 qwen xverse mpt bamba minimax "
    "minimax_text_01 minimax_m1": "an earlier vLLM had a class for it, 0.33.0 has none",
    "bert bert-generation camembert data2vec-text electra ernie roberta roberta-prelayernorm roc_bert xlm-roberta "
    "xlm-roberta-xl xmod": "it runs there as an encoder, which keeps nothing",
    "bart bigbird_pegasus blenderbot blenderbot-small longt5 m2m_100 marian mbart mt5 nllb-moe pegasus pegasus_x plbart "
    "seamless_m4t seamless_m4t_v2 speech_to_text switch_transformers t5 udop umt5 t5_gemma_module t5gemma2_decoder moonshine "
    "musicgen_decoder musicgen_melody_decoder": "it has no class, and its encoder and decoder can't be driven through Transformers",
    "big_bird codegen fsmt git gpt_neo gpt_neox_japanese led megatron-bert mvp prophetnet rembert roformer speecht5 trocr "
    "xglm blip_text_model diffllama recurrent_gemma zamba rwkv xlstm reformer xlnet cpmant evolla idefics": "it has no class, and its attention can't be driven through Transformers",
    "flint": "its class runs on FlashInfer alone, whose blocks are not described",
    "glm5_next_text": "its class has caches of its own kinds (pools of index keys, rings), which are not described",
    "granite_docling_text inkling2_text mistral_large4_text lfm3": "0.33.0 has no class for it, nor has a Transformers release that it runs with",
    "blt canary_decoder coarse_acoustics csm deepseek_ref dia_decoder gradium_phonon_tts "
    "moonshine_streaming pix2struct_text_model pocket_tts pop2piano pp_formulanet_text semantic": "it has no "
    "class, and can't be driven through Transformers",
    "nanbeige rwkv5 rwkv6 rwkv7 openelm yi baichuan_m1 plamo phi-msft gated_deltanet mamba_ssm bailing_moe_linear bailing_moe_linear_v2 "
    "hunyuan": "neither it nor Transformers has a class for it",
}
# The longest sequence of a config that says none: what its class assumes, in vLLM (_CONFIG_REGISTRY) or else in Transformers.
CLASS_LENGTHS = {
    name: length
    for length, names in {
        1024: "biogpt cohere_asr gpt2 gpt_bigcode",
        1048576: "deepseek_v4 mistral4 muse_spark_text",
        128000: "step3p5 lfm2 lfm2_moe qwen3_vl_moe_text qwen3_vl_text",
        131072: "axk2 voxtral_realtime_text cosmos3_edge_text cwm ernie4_5 ernie4_5_moe ernie4_5_vl_moe_text gemma3_text gemma4_text glm glm4 glm4_moe "
        "glm_ocr_text gpt_oss hy_v3 laguna llama4_text longcat_flash mellum mimo_v2_flash ministral mistral mixtral "
        "muse_glimmer_text paddleocr_vl_text phi4_multimodal phimoe solar_open youtu zaya",
        16384: "afmoe persimmon",
        196608: "minimax_m2",
        202752: "glm4_moe_lite glm_moe_dsa",
        2048: "aria_text chatglm hrm_text bitnet dbrx deepseek_ocr2_text deepseek_v2 doge dots1 exaone4 exaone_moe falcon gpt_neox gptj granite "
        "granite4_vision_text granitemoe granitemoe_swa granitemoehybrid granitemoeshared hunyuan_v1_dense hunyuan_v1_moe "
        "hunyuan_vl_text hyperclovax llama nanochat olmo olmo2 olmo3 opt phi",
        256: "ctrl",
        262144: "bailing_hybrid gemma4_unified_text hy_v4 jamba kolibri1 ministral3",
        32768: "beam axk1 gemma3n_text glm4v_text minicpm3 qwen2 qwen2_5_omni_text qwen2_5_vl_text qwen2_moe qwen2_vl_text qwen3 "
        "qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen3_omni_moe_text qwen4_exp_text smollm3 unlimited_ocr_text",
        36864: "molmo2_text",
        4096: "deepseek_v32 kimi_k2 kimi_linear arcee chameleon deepseek_v3 flex_olmo helium jetmoe nemotron nemotron_h olmoe phi3 stablelm starcoder2 zamba2",
        448: "whisper",
        524288: "minimax_m3_vl_text seed_oss",
        65536: "olmo_hybrid step3_text apertus glm4v_moe_text",
        8192: "jais2 cohere cohere2 cohere2_moe cohere_compass_text falcon_h1 gemma gemma2 granite_swa modernbert-decoder "
        "vaultgemma",
    }.items()
    for name in names.split()
}
# Classes without pipeline stages (SupportsPP), and model types whose own class has none: of vLLM, or driven through Transformers.
NO_PIPELINE = frozenset(
    """
    AliceAIForCausalLM AriaForConditionalGeneration CohereAsrForConditionalGeneration DiffusionGemmaForBlockDiffusion
    DomynEdgeForCausalLM DoryForCausalLM FireRedASR2ForConditionalGeneration FunASRForConditionalGeneration Gemma3nForCausalLM
    Gemma3nForConditionalGeneration HrmTextForCausalLM Idefics3ForConditionalGeneration IQuestLoopCoderForCausalLM
    Mamba2ForCausalLM NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 NemotronH_Omni_Reasoning_V3
    NemotronH_Super_Omni_Reasoning_V3 NemotronParseForConditionalGeneration PaddleOCRVLForConditionalGeneration
    Phi4MMForCausalLM RadioMBartPrefixForCausalLM SmolVLMForConditionalGeneration WhisperForConditionalGeneration
    Zamba2ForCausalLM
    """.split()
)
NO_PIPELINE_TYPES = frozenset(
    "aria_text cohere_asr diffusion_gemma_text gemma3n_text hrm_text mamba2 paddleocr_vl_text phi4_multimodal whisper zamba2".split()
)
DRIVEN_WHOLE = frozenset("kosmos_2_text_model kosmos_2_5_text_model".split())
# Types whose class counts as hybrid (IsHybrid); with attention sinks; encoder-decoders.
HYBRID = frozenset(
    "falcon_h1 qwen3_next qwen4_exp_text granitemoehybrid jamba kimi_linear lfm2 lfm2_moe nemotron_h olmo_hybrid qwen3_5_text "
    "qwen3_5_moe_text zamba2 bailing_hybrid".split()
)
SINKS = frozenset({"gpt_oss"})
# Types with wider heads in full layers than in sliding ones.
GEMMA_4 = frozenset({"gemma4_text", "gemma4_unified_text", "diffusion_gemma_text"})
ENCODER_DECODER = frozenset({"whisper", "cohere_asr"})
# The registry's architectures (model_executor/models/registry.py): those that generate, alone or beside towers, and those that
# it drives through Transformers.
ARCHITECTURES = frozenset(
    name + end
    for end, names in {
        "ForCausalLM": """
        Afmoe AliceAI Apertus Arcee AXK1 BailingMoe BailingMoeV2 BailingMoeV2_5 BailingMoeV3 Beam Bloom Cohere
        Cohere2 Cohere2Moe Cwm Dbrx DeciLM Deepseek DeepseekOCR DeepseekOCR2 DeepseekV2 DeepseekV3 DeepseekV32
        DeepseekV4 DeepseekV41 DeepseekVLV2 DomynEdge Dory Dots3Note DotsOCR Ernie4_5 Ernie4_5_Moe Exaone
        Exaone4 ExaoneMoE ExaoneMoe Falcon FalconH1 FalconMamba FlexOlmo Flint Gemma Gemma2 Gemma3 Gemma3n
        Gemma4 Glm Glm4 Glm4Moe Glm4MoeLite GLM4V Glm5Next GlmMoeDsa GPTBigCode GPTJ GPTNeoX GptOss Granite
        GraniteMoe GraniteMoeHybrid GraniteMoeShared GraniteMoeSWA GraniteSWA HCXVisionV2 HrmText HunYuanDenseV1
        HunYuanMoEV1 HyperCLOVAX HYV3 HYV4 Inkling InternLM2 InternLM3 IQuestCoder IQuestLoopCoder Jais2 Jamba
        K2Horizon KimiLinear Kolibri1 Laguna Lfm2 Lfm2Moe Llama LLaMA Llama4 LongcatFlash LongcatFlashNgram
        Mamba Mamba2 Mellum MiMo MiMoV2 MiMoV2Flash MiMoV2Omni MiniCPM MiniCPM3 MiniMaxM2 MiniMaxM3Sparse
        Ministral3 Mistral MistralLarge3 Mixtral Molmo Moondream3 MoonshotKimia MuseGlimmer Nanbeige Nemotron
        NemotronH NemotronHPuzzle Olmo Olmo2 Olmo3 Olmoe OlmoHybrid OPT Orion Ovis2_6 Ovis2_6_Moe PanguEmbedded
        PanguProMoEV2 PanguUltraMoE Param2MoE Phi Phi3 Phi3V Phi4MM PhiMoE Plamo3 Qwen2 Qwen2Moe Qwen3 Qwen3_5
        Qwen3_5Moe Qwen3Moe Qwen3Next Qwen4Exp RadioMBartPrefix Rnj1 SarvamMLA SarvamMoE SeedOss SmolLM3 Solar
        StableLm Starcoder2 Step1 Step3p5 Step3Text Step5 TeleChat2 TeleChat3 TeleFLM Transformers
        TransformersMoE TransformersMultiModal TransformersMultiModalMoE UnlimitedOCR VaultGemma Zamba2
        """,
        "ForConditionalGeneration": """
        Aria AudioFlamingo3 Bagel BailingMoeV3VL Bee Blip2 ChatGLM Cohere2Vision CohereAsr CohereCompass Cosmos3
        Cosmos3Edge DeepseekV4 Eagle2_5_VL Emu3 Ernie4_5_VLMoe Exaone4_5_ FireRedASR2 FunASR FunAudioChat Gemma3
        Gemma3n Gemma4 Gemma4Unified Glm4v Glm4vMoe Glm5Next GlmAsr GlmOcr Granite4Vision GraniteSpeech
        GraniteSpeechPlus HunYuanVL Idefics3 Inkling InternS1 InternS1Pro InternS2Mobius InternS2Preview
        InternVL Isaac KananaV Keye KeyeVL1_5 KimiK25 KimiK3 KimiVL Lfm2Vl LightOnOCR Llama4 Llava LlavaNext
        LlavaNextVideo LlavaOnevision LlavaOnevision2 MiniCPMOcr MiniCPMV4_6 MiniCPMV4_7 MiniMaxM3Sparse
        Mistral3 Molmo2 MossTranscribeDiarize MuseGlimmer MuseSpark NemotronParse OpenCUA OpenPanguVL
        PaddleOCRVL PaliGemma Pixtral QianfanOCR Qwen2_5_VL Qwen2_5Omni Qwen2Audio Qwen2VL Qwen3_5 Qwen3_5Moe
        Qwen3ASR Qwen3OmniMoe Qwen3VL Qwen3VLMoe Qwen4Exp R SmolVLM Step3p7 Step3VL Step5 StepVL VibeVoiceAsr
        Voxtral Whisper
        """,
        "": """
        Alpamayo2Super ChatGLMModel DiffusionGemmaForBlockDiffusion GPT2LMHeadModel H2OVLChatModel HfMoondream
        InternVLChatModel Llama_Nemotron_Nano_VL MiDashengLMModel MiniCPMO MiniCPMV MossAudioModel
        NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 NemotronH_Omni_Reasoning_V3
        NemotronH_Super_Omni_Reasoning_V3 NVLM_D OpenVLAForActionPrediction Ovis Ovis2_5 Phi4ForCausalLMV
        Qwen2_5OmniModel Qwen3ASRRealtimeGeneration SkyworkR1VChatModel TransformersEmbeddingModel
        TransformersForMTP TransformersForSequenceClassification TransformersMoEEmbeddingModel
        TransformersMoEForMTP TransformersMoEForSequenceClassification TransformersMultiModalEmbeddingModel
        TransformersMultiModalForSequenceClassification UltravoxModel VoxtralRealtimeGeneration
        """,
    }.items()
    for name in names.split()
)
# Until which version vLLM had an architecture (_PREVIOUSLY_SUPPORTED_MODELS).
GONE = {
    name: version
    for version, names in {
        "0.10.2": (
            "MotifForCausalLM Phi4FlashForCausalLM DonutForConditionalGeneration MllamaForConditionalGeneration"
        ),
        "0.9.2": "Phi3SmallForCausalLM",
        "0.12.0": "Phi4MultimodalForCausalLM",
        "0.22.0": "JAISLMHeadModel",
        "0.23.0": (
            "ErnieModel ErnieForSequenceClassification ErnieForTokenClassification "
            "InternLM2VEForCausalLM QWenLMHeadModel QwenVLForConditionalGeneration InternLMForCausalLM "
            "XverseForCausalLM Dots1ForCausalLM BambaForCausalLM MiniMaxForCausalLM "
            "MiniMaxText01ForCausalLM MiniMaxM1ForCausalLM MiniMaxVL01ForConditionalGeneration "
            "BaiChuanForCausalLM BaichuanForCausalLM Tarsier2ForConditionalGeneration"
        ),
        "0.24.0": (
            "AquilaModel AquilaForCausalLM Grok1ModelForCausalLM Grok1ForCausalLM "
            "TarsierForConditionalGeneration MantisForConditionalGeneration "
            "MusicFlamingoForConditionalGeneration AyaVisionForConditionalGeneration"
        ),
        "0.25.0": "TeleChatForCausalLM PersimmonForCausalLM FuyuForCausalLM",
        "0.26.0": "Plamo2ForCausalLM OuroForCausalLM",
        "0.28.0": (
            "ArcticForCausalLM ChameleonForConditionalGeneration Cheers CheersForConditionalGeneration "
            "Fairseq2LlamaForCausalLM FireRedLIDForConditionalGeneration GritLM HCXVisionForCausalLM "
            "MPTForCausalLM MptForCausalLM RWForCausalLM StableLMEpochForCausalLM PrithviGeoSpatialMAE"
        ),
    }.items()
    for name in names.split()
}
# Architectures of Transformers that the releases vLLM runs with lack.
TOO_NEW = frozenset(
    """
    GradiumPhononTTSForConditionalGeneration GraniteDoclingForConditionalGeneration Inkling2ForConditionalGeneration
    Inkling2ForCausalLM Lfm3ForCausalLM Lfm3VlForConditionalGeneration MistralLarge4ForConditionalGeneration
    Nemotron3_5TranscribeForConditionalGeneration PocketTTSForConditionalGeneration
    """.split()
)
# The key that holds how many modules of multi-token prediction there are, by model type, or by architecture
# (hf_config_override, config/speculative.py).
MODULES = {
    name: key
    for key, names in {
        "num_nextn_predict_layers": "deepseek_v3 deepseek_v32 glm_moe_dsa deepseek_v4 pangu_ultra_moe kimi_k3 ernie4_5_moe qwen3_next "
        "qwen4_exp qwen4_exp_text bailing_hybrid exaone_moe exaone4_5 hy_v3 hy_v4 glm5_next longcat_flash step3p5 step3p7 step5 "
        "step5_vl dots3_note nemotron_h nemotron_h_puzzle MiMoForCausalLM MiMoV2ForCausalLM MiMoV2FlashForCausalLM "
        "Glm4MoeForCausalLM Glm4MoeLiteForCausalLM GlmOcrForConditionalGeneration",
        "mtp_num_hidden_layers": "qwen3_5 qwen3_5_moe qwen3_5_text qwen3_5_moe_text",
        "num_mtp_modules": "minimax_m3_vl",
    }.items()
    for name in names.split()
}
# How many where the class says so, whatever the config does.
FIXED_MODULES = {"MiMoV2ForCausalLM": 1, "MiMoV2FlashForCausalLM": 1}
# And where the config says nothing.
DEFAULT_MODULES = dict.fromkeys("longcat_flash step3p5 step3p7 step5 step5_vl dots3_note minimax_m3_vl".split(), 1)
