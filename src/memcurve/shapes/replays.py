"""The records that answers of replays are made of, by name."""

from __future__ import annotations

from .build import answer, by_name, flag, many, maybe, number, record, ref, text, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .build import Shape

TIME = whole("Nanoseconds.")
PERCENTILES = "p50, p90, p95, p99 and p99.9."
NO_MEMORY = "null: no memory is given, or requests wait for it"

REPLAYS: dict[str, Shape] = {
    "TraceCounts": record(
        "What was read of a trace.",
        {
            "lines": whole("All, a header among them."),
            "requests": whole("Of them."),
            "broken_lines": whole("That are no requests, and were left out."),
            "broken": many(
                record("", {"line": whole("Its number."), "why": text("The reason.")}), "The first of them."
            ),
            "backwards": whole("Earlier than a line before; put in order."),
            "late": whole("Of these too late for that: they arrive with the one before."),
            "failed": whole("Requests without an output, left out."),
            "ended_early": maybe(text("Why the file is not whole."), "null: it is"),
        },
    ),
    "ServiceModel": record(
        "Where time comes from: an assumption.",
        {
            "step_ns": whole("Of a step in which each request that decodes gets a token.", 1),
            "prefill_tokens_per_step": whole("Tokens of prompts in such a time.", 1),
            "prefill_rate": number("Tokens of prompts per second."),
            "decode_rate": number("Tokens per second of one request that decodes."),
            "source": text("Where both rates are from."),
            "assumption": text("The same in words."),
        },
    ),
    "ReplayQueue": record(
        "What requests met that waited for memory.",
        {
            "waited": by_name(TIME, "From arrival to admission: " + PERCENTILES),
            "waited_most": whole("The longest, in nanoseconds."),
            "waiting_most": whole("Requests that waited at once."),
            "first_token": by_name(TIME, "From arrival to the first token: " + PERCENTILES),
            "finished": whole("Requests."),
            "preempted": whole("Requests that were, once or more."),
            "preemptions": whole("How often any was."),
            "kept_out": by_name(TIME, "How long the first that waited was kept out, by reason."),
            "computed_tokens": whole("Again after a preemption."),
            "hit_tokens": whole("Found cached instead."),
            "reusable_tokens": maybe(
                whole("What a cache without a limit would find."), "null: the trace has no hashes, or nothing is shared"
            ),
            "dropped_tokens": whole("Held by requests when they were preempted, and computed anew."),
            "offload_bytes": whole("What these filled: it would move out, and in again, were it offloaded."),
        },
    ),
    "ReplayRun": record(
        "One model over a trace. Bytes are of one GPU, or of the whole model where no GPUs are said.",
        {
            "name": text("The model's, or its label."),
            "engine": text("logical, transformers, vllm or sglang."),
            "dtype": text("The curve's dtype."),
            "gpu": text("Its kind; empty where none is said."),
            "gpus": whole("That share every layer; 0 where none are said."),
            "capped": flag("Whether requests waited for memory."),
            "capacity_bytes": maybe(whole("For state."), "null: without a limit"),
            "peak_bytes": whole("The most at once."),
            "peak_ns": whole("When, from the first arrival."),
            "mean_bytes": whole("Over the whole time."),
            "percentiles": by_name(whole("Bytes."), "Over the whole time: " + PERCENTILES),
            "peak_running": whole("Requests at once."),
            "mean_running": number("Requests at once."),
            "duration_ns": whole("From the first arrival to the end of the last request."),
            "busy": number("The share of the time in which any request runs."),
            "filled": maybe(number("The share of the bytes held that tokens and states fill."), "null: all is"),
            "over": maybe(number("The share of the time in which demand passes the capacity."), NO_MEMORY),
            "over_bytes": maybe(whole("By how much at most."), NO_MEMORY),
            "moved_bytes": maybe(whole("What would move out, and in again, were all above it elsewhere."), NO_MEMORY),
            "turned_down": whole("Requests too long for the engine."),
            "cut": whole("Outputs that end at the engine's longest request."),
            "utilisation": maybe(number("mean_bytes of capacity_bytes."), "null: without a limit"),
            "queue": maybe(ref("ReplayQueue"), "null: nothing waits"),
            "bins": whole("Rows of the series, which -o writes."),
            "bin_ns": whole("How long each but the last is.", 1),
            "notes": many({"type": "string"}, "What the figures stand on, and what might be otherwise."),
        },
    ),
    "Replay": answer(
        "What a trace comes to for models.",
        {
            "trace": text("Its path."),
            "format": text("azure, burstgpt, mooncake, csv or json lines."),
            "counts": ref("TraceCounts"),
            "first_time_ns": whole("Of the first arrival, as the trace has it: since 1970 where it has dates.", None),
            "span_ns": whole("From the first arrival to the last."),
            "prompt_tokens": whole("Of all requests."),
            "output_tokens": whole("Of all requests."),
            "service": ref("ServiceModel"),
            "runs": many(ref("ReplayRun"), "One for each model."),
            "notes": many({"type": "string"}, "What was read otherwise than it stands."),
        },
    ),
    "Smallest": answer(
        "The fewest GPUs, or the least memory, with which requests wait no longer than a limit (--max_queue).",
        {
            "percentile": text("Of the waits."),
            "limit_ns": whole("Allowed."),
            "gpus": whole("The fewest that share every layer; 0 where memory was looked for."),
            "memory_bytes": whole("For state, on each GPU."),
            "waited_ns": whole("What the percentile is with it."),
            "tried": many(
                record(
                    "",
                    {
                        "gpus": whole("How many; 0 where memory was looked for."),
                        "memory_bytes": maybe(whole("For state, on each GPU."), "null: the engine does not run so"),
                        "waited_ns": maybe(TIME, "null: the engine does not run so"),
                        "why": text("That, or what kept requests out the longest."),
                    },
                ),
                "In order.",
            ),
            "monotone": flag("Whether no smaller one that was tried does it."),
            "replay": ref("Replay"),
        },
    ),
}
