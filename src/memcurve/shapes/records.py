"""The records that answers are made of, by name."""

from __future__ import annotations

from ..terms import OPERATIONS
from .build import answer, by_name, flag, many, maybe, number, one_of, record, ref, row, text, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .build import Shape

MODEL = {"model": text("Its name, or what a config or a file is called.")}
SUBJECT = {**MODEL, "model_type": text("As its config says."), "structure": text("Its layers by kind.")}
ENGINE = {"engine": text("logical, transformers, vllm, sglang, llamacpp or mlx."), "dtype": text("The curve's dtype.")}
SHARED = {
    **SUBJECT,
    **ENGINE,
    "batch": whole("Sequences."),
    "encoder_context": whole("Positions that cross-attention keeps."),
    "formula": text("Bytes in words: T tokens, B sequences, E positions of an encoder."),
    "breakpoints": many(whole("Tokens."), "Contexts after which bytes grow at another rate."),
}
NOTES = many({"type": "string"}, "What the figures stand on, and what might be otherwise.")
BYTES = whole("Bytes.")
TENSORS = many(row("A tensor's name, and its bytes per slot.", {"type": "string"}, BYTES))
FILLED = maybe(
    many(
        row("kv or state, bytes, and slots.", {"type": "string"}, BYTES, ref("Expr")),
        "What tokens and states really fill of a reservation; the rest is padding.",
    ),
    "null: all of it, but for tensors named padding or unused",
)
POOL = maybe(one_of("Counts of the engine's own.", ref("VllmPool"), ref("SGLangPool")), "null: no pool is made")
OPTION_VALUE: Shape = {"type": ["boolean", "integer", "number", "string", "null"]}

RECORDS: dict[str, Shape] = {
    # -- curves as data ---------------------------------------------------------------------------------------------------
    "Expr": {
        "description": "A number, context, batch or encoder, or [operation, left, right] in whole numbers: floor is a//b, ceil "
        "−(−a//b), past max(a − b, 0), rows those of a buffer that got a tokens in pieces of b and grows by 256s; a divisor with batch counts batch 0 as 1.",
        "anyOf": [
            {"type": "integer"},
            {"enum": ["context", "batch", "encoder"]},
            row("", {"enum": list(OPERATIONS)}, ref("Expr"), ref("Expr")),
        ],
    },
    "Term": record(
        "Layers that keep alike: layers · the tensors' bytes · slots · (shared ? 1 : batch).",
        {
            "kind": text("The kind of layer."),
            "layers": whole("How many."),
            "tensors": TENSORS,
            "slots": ref("Expr"),
            "shared": flag("Whether all sequences share the slots."),
        },
    ),
    "Limits": record(
        "Sizes that llama.cpp does not take as they stand.",
        {
            "zero_context": one_of("What a context of 0 stands for, or why it is refused.", BYTES, {"type": "string"}),
            "most_batch": whole("More sequences are refused."),
            "step_tokens": whole("More sequences than so many tokens of a step are refused."),
            "step_in_context": flag("Whether a step is at most a context."),
            "too_many": text("Why more sequences are refused."),
            "too_short": text("Why so short a step is."),
        },
    ),
    "Refusal": record(
        "What an engine raises with so many tokens and sequences.",
        {
            "why": text("Its reason."),
            "context": whole("The fewest tokens."),
            "last_context": maybe(whole("The most."), "null: without end"),
            "batch": whole("The fewest sequences."),
            "last_batch": maybe(whole("The most."), "null: without end"),
        },
    ),
    "MemoryCurve": answer(
        "What MemoryCurve.to_dict writes and from_dict reads.",
        {"name": text("The subject's."), **ENGINE, "terms": many(ref("Term")), "notes": NOTES},
        {"limits": ref("Limits"), "refusals": many(ref("Refusal"))},
    ),
    "Bound": record(
        "A bound of the engine's own.", {"name": text("The setting."), "most": whole("The most it allows.")}
    ),
    "Bounds": record("The engine's own bounds.", {}, {"context": ref("Bound"), "batch": ref("Bound")}),
    "VllmPool": record(
        "What vLLM makes of memory on each rank.",
        {
            "pool_bytes": BYTES,
            "num_blocks": whole("Blocks, one of which stays empty."),
            "bytes_per_block": BYTES,
            "max_concurrency": maybe(number("Requests of max_model_len at once."), "null: without end"),
            "capacity_tokens": maybe(whole("The same in tokens, as the log says it."), "null: without end"),
            "longest_context": whole("What max_model_len=-1 would choose."),
        },
    ),
    "SGLangPool": record(
        "What SGLang makes of memory on each rank.",
        {
            "pool_bytes": BYTES,
            "memory_bytes": BYTES,
            "page": whole("Tokens of a page."),
            "tokens": whole("max_total_num_tokens, of all requests together."),
            "full_tokens": maybe(whole("Of the pool of full layers, where others slide.")),
            "swa_tokens": maybe(whole("Of the pool of sliding layers.")),
            "state_slots": maybe(whole("max_mamba_cache_size.")),
            "slots_per_request": maybe(whole("State slots that a running request takes.")),
            "max_running_requests": whole("Requests at once."),
            "limited_by": text("What limits them."),
            "pools": many(row("A pool's name, and its bytes.", {"type": "string"}, BYTES)),
            "padding_bytes": whole("Bytes of the page and the slot in front, which the sizing does not count."),
        },
    ),
    # -- estimate, curve, cross -------------------------------------------------------------------------------------------
    "Row": record(
        "A term at a context: layers · slots · bytes_per_slot · sequences.",
        {
            "kind": text("The kind of layer."),
            "tensors": many({"type": "string"}),
            "layers": whole("How many keep it."),
            "slots": whole("Of each layer and sequence."),
            "bytes_per_slot": BYTES,
            "sequences": whole("How many have slots of their own."),
            "grows": flag("Whether more context takes more of it."),
            "bytes": BYTES,
        },
    ),
    "AtContext": record(
        "Bytes at a context.",
        {
            "context": whole("Tokens."),
            "bytes": BYTES,
            "growing_bytes": whole("Bytes of what still grows."),
            "constant_bytes": whole("Bytes of what does not."),
            "peak_bytes": whole("The most on the way to the context."),
            "breakdown": many(ref("Row")),
        },
    ),
    "Estimate": answer(
        "Bytes at contexts, unfolded.",
        {**SHARED, "notes": NOTES, "estimates": many(ref("AtContext"))},
        {
            "context": whole("Tokens, where one context was asked for."),
            "bytes": whole("Bytes, where one context was asked for."),
            "pool": one_of("What the engine makes of memory.", ref("VllmPool"), ref("SGLangPool")),
        },
    ),
    "EveryEngine": answer(
        "Bytes at contexts under every engine.",
        {
            **MODEL,
            "batch": whole("Sequences."),
            "contexts": many(whole("Tokens.")),
            "engines": many(
                record(
                    "",
                    {
                        "engine": text("Its name."),
                        "bytes": maybe(many(BYTES, "At each context."), "null: it has no answer, how says why"),
                        "how": text("What makes its bytes differ from the paper's count."),
                    },
                )
            ),
        },
    ),
    "Fitting": answer(
        "The dtypes of an engine's cache that were tried in so much memory, widest first.",
        {
            **MODEL,
            "engine": ENGINE["engine"],
            "context": whole("Tokens."),
            "batch": whole("Sequences."),
            "memory": BYTES,
            "widest": maybe(text("The first that fits."), "null: none"),
            "tried": many(
                record(
                    "",
                    {
                        "name": text("The options that ask for it, or the dtype without any."),
                        "options": by_name({"type": "string"}, "The same as options."),
                        "bytes": maybe(BYTES, "null: the engine refuses"),
                        "fits": flag("Whether it fits."),
                        "why": text("What keeps it from fitting."),
                    },
                )
            ),
        },
    ),
    "Room": record(
        "What an engine makes of so many bytes.",
        {
            "memory": BYTES,
            "pool": POOL,
            "refused": maybe(text("Why the engine would not start."), "null: it would"),
            "shares": many(
                record(
                    "What requests share out.",
                    {"name": text("The resource."), "units": whole("How much there is."), "each": ref("Expr")},
                )
            ),
        },
    ),
    "CurveAnswer": answer(
        "A curve as data, and what it takes to draw and to explain it.",
        {
            **SHARED,
            "cap": maybe(whole("The context from which on nothing grows."), "null: it grows without end"),
            "period": whole("Tokens after which the stairs of blocks repeat."),
            "notes": NOTES,
            "first_context": whole("The smallest context that stands for itself."),
            "kinks": many(whole("Tokens."), "Contexts after which the rate changes, at this batch."),
            "explanation": many({"type": "string"}, "Lines."),
            "shared_context": flag("Whether all sequences share out one context."),
            "bounds": ref("Bounds"),
            "pools": flag("Whether the engine makes a pool of memory."),
            "room": maybe(ref("Room"), "null: no memory given, or no pool"),
            "filled": FILLED,
            "curve": ref("MemoryCurve"),
        },
    ),
    "Cross": answer(
        "Which of two is cheaper where.",
        {
            "batch": whole("Sequences."),
            "subjects": many(record("", {"name": text("As pairs and crossings name it."), **ENGINE})),
            "pairs": many(
                record(
                    "",
                    {
                        "subjects": row("", {"type": "string"}, {"type": "string"}),
                        "cheaper_first": maybe(text("Before the first crossing."), "null: equal throughout"),
                        "equal_somewhere": flag("Whether both take the same at some contexts."),
                        "crossings": whole("How many."),
                        "period": maybe(whole("Tokens after which all repeats."), "null: the crossings are all"),
                    },
                )
            ),
            "crossings": many(
                record(
                    "From this context on one is cheaper.",
                    {
                        "context": whole("Tokens."),
                        "cheaper": text("A subject."),
                        "dearer": text("The other."),
                        "bytes": whole("Of the cheaper."),
                        "dearer_bytes": BYTES,
                    },
                )
            ),
        },
    ),
    # -- fit, compare -----------------------------------------------------------------------------------------------------
    "Allowance": record(
        "One thing set aside on a GPU.",
        {
            "name": text("What."),
            "bytes": BYTES,
            "why": text("The rule or the assumption, with its numbers."),
            "exact": flag("Whether the engine's own rule gives it; else it is assumed."),
            "warns": flag("Whether it may keep the engine from starting."),
        },
    ),
    "PerGpu": record(
        "One GPU: weights + state + reserve + free = total.",
        {
            "stage": whole("Its pipeline stage."),
            "weights_bytes": BYTES,
            "state_bytes": BYTES,
            "reserve_bytes": whole("Bytes set aside, unfolded in allowances."),
            "free_bytes": whole("Negative by what is lacking.", None),
            "total_bytes": BYTES,
            "allowances": many(ref("Allowance")),
        },
    ),
    "Steady": record(
        "What the engine's scheduler runs at once when it is kept full.",
        {
            "running": whole("The most requests at once."),
            "mean": number("On average, once it is full."),
            "preemptions": whole("How often a request was put back."),
            "steps": whole("Of the scheduler."),
            "used": many(row("A resource, the most in use, how much there is.", {"type": "string"}, BYTES, BYTES)),
            "bound_by": text("What kept the next request out."),
            "pessimistic": maybe(number("Requests of the longest kind that it reckons with.")),
            "longest": whole("Tokens of the longest request."),
            "requests": whole("How many waited at the start."),
            "turned_down": whole("How many were too long."),
        },
    ),
    "PageRoom": record(
        "What a page computes other contexts and batches from, of one GPU.",
        {
            "weights": BYTES,
            "reserve": BYTES,
            "buffers": many(ref("Expr"), "Sizes of which the largest is set aside too."),
            "total": BYTES,
            "room": whole("Bytes for state; negative by what is lacking.", None),
            "curve": ref("MemoryCurve"),
            "shares": one_of(
                "What requests share, [name, how much, of each]; what the engine lacks to start; null without a pool.",
                many(row("", {"type": "string"}, BYTES, ref("Expr"))),
                {"type": ["string", "null"]},
            ),
            "filled": FILLED,
            "most": row("The most requests at once, and the setting.", BYTES, {"type": "string"}),
            "shared_context": flag("Whether all sequences share out one context."),
            "allowances": many(ref("Allowance")),
        },
    ),
    "Fit": answer(
        "Whether a model with its state fits GPUs, and how much of it.",
        {
            "fits": flag("Whether batch requests of context tokens do."),
            **MODEL,
            "engine": ENGINE["engine"],
            "gpu": text("The device."),
            "gpus": whole("How many."),
            "tp": whole("GPUs that share every layer."),
            "pp": whole("Pipeline stages."),
            "context": whole("Tokens of each request."),
            "batch": whole("Requests at once."),
            "per_gpu": ref("PerGpu"),
            "max_context": maybe(whole("The longest that batch requests can each have."), "null: no end"),
            "max_requests": whole("How many of context tokens run at once."),
            "bound_by": text("What keeps one more out."),
            "stages": many(ref("PerGpu"), "One of each pipeline stage."),
            "fewest": maybe(
                record("The fewest GPUs that do it.", {name: whole("") for name in ("gpus", "tp", "pp")}),
                "null: no number of them that was tried",
            ),
            "starts_with": maybe(whole("The longest max_model_len that vLLM starts with."), "null: its own does"),
            "weights": text("Where the weights are from."),
            "total_weights": whole("Bytes on all GPUs together, none twice."),
            "extras": by_name(BYTES, "Of the fullest GPU's state, what is there for drafting and for prefixes."),
            "pool": POOL,
            "steady": maybe(ref("Steady"), "null: no prompt and output given"),
            "notes": NOTES,
        },
        {
            "limit": maybe(
                row("The setting, and the longest context it allows.", {"type": "string"}, BYTES), "null: none"
            ),
            "rooms": many(ref("PageRoom"), "Where they were asked for."),
        },
    ),
    "Compared": record(
        "One model of a comparison. From weights_bytes on null without a GPU, and where why says what stands against it.",
        {
            **MODEL,
            **ENGINE,
            "per_token": number("Bytes of one more token at the longest contexts."),
            "constant": whole("Bytes of states and of full windows, which grow no more at the longest contexts."),
            "constant_from": whole("The first context at which they are all there."),
            "bytes": by_name(maybe(BYTES, "null: more than the engine takes of one request"), "By context."),
            "weights_bytes": maybe(BYTES),
            "gpus": maybe(whole("How many.")),
            "max_context": maybe(whole("The longest of one request."), "null: no end"),
            "max_requests": maybe(whole("Of 32,768 tokens at once.")),
            "bound_by": maybe(text("What keeps one more out.")),
            "why": text("What stands against an answer."),
        },
    ),
    "Compare": answer("Models side by side.", {"models": many(ref("Compared"))}),
    # -- tables -----------------------------------------------------------------------------------------------------------
    "Models": answer(
        "The catalogue.",
        {
            "models": many(
                record(
                    "",
                    {
                        "name": text("Its name on the hub."),
                        "type": text("Its model type."),
                        "structure": text("Its layers by kind."),
                        "kinds": many({"type": "string"}, "Kinds of layer."),
                        "dtype": maybe(text("The config's own.")),
                        "source": text("How true to the published file."),
                    },
                )
            )
        },
    ),
    "Types": answer(
        "The model types of decoders.",
        {
            "types": many(
                record(
                    "",
                    {
                        "type": text("As a config says it."),
                        "structure": text("What reads it."),
                        "engines": many({"type": "string"}, "Those that have it."),
                        "cases": whole("Recorded ones that it is verified by."),
                        "source": text("Whose code it is of."),
                    },
                )
            ),
            "refused": many(record("", {"type": text("As a config says it."), "why": text("The reason.")})),
        },
    ),
    "Gpus": answer(
        "Accelerators.",
        {
            "gpus": many(
                record(
                    "One die, tile or chip as a process sees it.",
                    {
                        "name": text("Its name."),
                        "aliases": many({"type": "string"}),
                        "vendor": text("Who makes it."),
                        "memory_bytes": whole("Its total, by which engines reckon."),
                        "memory_from": text("driver, or data sheet."),
                        "reported_by": text("Who reports it, such as CUDA."),
                        "source": text("Of the figure."),
                        "driver_bytes": maybe(whole("The total of nvidia-smi, where it differs.")),
                        "unified_bytes": maybe(whole("Of a machine whose CPU and GPU share memory.")),
                        "capability": maybe(row("NVIDIA's compute capability.", BYTES, BYTES)),
                        "note": {"type": "string"},
                    },
                )
            )
        },
    ),
    "Option": record(
        "An engine's option.",
        {
            "name": {"type": "string"},
            "kind": {"enum": ["count", "number", "flag", "word"]},
            "default": OPTION_VALUE,
            "optional": flag("Whether it may be null."),
            "choices": maybe(many(OPTION_VALUE), "null: any of its kind"),
        },
    ),
    "Engines": answer(
        "Engines and their options, dtypes, and what patterns are made of.",
        {
            "engines": many(
                record(
                    "",
                    {
                        "name": text("Its name."),
                        "how": text("What makes its bytes differ."),
                        "pools": flag("Whether it makes a pool of memory."),
                        "shared_context": flag("Whether all sequences share out one context."),
                        "options": many(ref("Option")),
                        "fit_options": many(ref("Option"), "Those that only a fit takes."),
                    },
                )
            ),
            "dtypes": many({"type": "string"}),
            "patterns": many({"type": "string"}, "Kinds of layer that a pattern names."),
            "pattern_sizes": many(
                record("", {"name": {"type": "string"}, "default": OPTION_VALUE, "meaning": {"type": "string"}})
            ),
        },
    ),
    # -- files ------------------------------------------------------------------------------------------------------------
    "Gguf": answer(
        "A GGUF header made short.",
        {
            **SUBJECT,
            "gguf": text("The header without vocabulary and templates, in base64."),
            "weights_bytes": maybe(whole("Of the tensors that it lists."), "null: it does not list all"),
        },
    ),
    "Weights": answer(
        "What a checkpoint's parameters take.",
        {
            "source": text("The file, folder or hub id."),
            "bytes": BYTES,
            "parameters": whole("Numbers stored."),
            "tensors": whole("How many."),
            "by_dtype": by_name(BYTES, "By stored dtype."),
            "by_part": by_name(BYTES, "By part of the model."),
            "notes": NOTES,
        },
    ),
    "CheckLog": answer(
        "Figures of a start-up log beside memcurve's.",
        {
            "figures": many(
                record(
                    "",
                    {
                        "line": whole("Its number."),
                        "figure": text("Its name."),
                        "logged": text("As the log has it."),
                        "computed": text("memcurve's."),
                        "agrees": flag("Whether they agree within rounding."),
                        "why": text("Of what it follows."),
                    },
                )
            ),
            "options": many(
                record(
                    "An option that the log states.",
                    {"line": whole("Its number."), "option": {"type": "string"}, "value": OPTION_VALUE},
                )
            ),
            "differ": whole("How many figures do."),
        },
    ),
    "Verify": answer(
        "What an engine itself allocates, beside memcurve.",
        {
            "rows": many(
                record(
                    "",
                    {
                        "name": text("The subject."),
                        "cases": whole("Run."),
                        "equal": whole("Of them."),
                        "tensors": maybe(whole("Equal tensor by tensor."), "null: the engine is asked for totals"),
                        "difference": text("The first, or why it could not be run."),
                    },
                )
            )
        },
        {
            **{name: text("The engine's version.") for name in ("transformers", "vllm", "sglang", "llamacpp")},
            "stubbed": text("What of the engine was replaced."),
        },
    ),
    "Sweep": answer(
        "What a sweep came to; its rows are in the output.",
        {
            "output": text("The file, or the folder of files, as it was asked for."),
            "files": whole("How many there are.", 1),
            "columns": many({"type": "string"}, "Names, in the order of the rows."),
            "points": whole("Rows."),
            "curves": whole("That they are points of."),
            "invalid": whole("Rows without bytes, which have a reason."),
            "reasons": by_name(whole("Rows."), "The most frequent reasons, and of how many rows each is."),
            "least": maybe(BYTES, "of any row; null: no row has any"),
            "most": maybe(BYTES, "of any row; null: no row has any"),
            "pareto": maybe(
                record(
                    "What the front weighs bytes against, and where.",
                    {
                        "column": text("Its name."),
                        "best": {"enum": ["least", "most"], "description": "Of the column."},
                        "context": whole("Tokens."),
                        "batch": whole("Sequences."),
                    },
                ),
                "null: no front was asked for",
            ),
            "front": many(
                {
                    **by_name(OPTION_VALUE, "A point's settings and columns by name, and its bytes."),
                    "properties": {"subject": text("The model."), **ENGINE, "bytes": BYTES},
                    "required": ["subject", "engine", "dtype", "bytes"],
                },
                "Points that no other of their engine beats, by bytes.",
            ),
        },
    ),
    "Problem": record(
        "RFC 9457, with memcurve's kind of error.",
        {
            "type": {"const": "about:blank"},
            "title": text("The status in words."),
            "status": whole("Of HTTP."),
            "detail": text("One line: the key, the value, and what was expected."),
            "error": text("BadConfig, BadFile, NotDescribed, Refused, TooLarge, or of the server: NotFound, Busy …"),
        },
    ),
}  # fmt: skip
