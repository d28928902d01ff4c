// What is asked, as words of the link; and of a link that comes from elsewhere, what was not understood.

import { group, parseBytes, parseCount } from "./format.js";

export const MOST = { models: 8, context: 2 ** 23, batch: 4096, gpus: 64, memory: 2 ** 50 };
export const TAKES = {
  memory: "a size such as 79.6GiB, at most 1 PiB", gpus: `a whole number from 1 to ${MOST.gpus}`,
  context: `1 to ${group(MOST.context)} tokens, such as 32768, 128k or 1M`, batch: `1 to ${group(MOST.batch)} requests`,
};
const DEFAULT = { models: ["Qwen/Qwen3-Next-80B-A3B-Thinking", "meta-llama/Meta-Llama-3.1-70B"], engine: "vllm", dtype: "", gpu: "H100 80GB", memory: null, gpus: 4, tp: 0, context: 32768, batch: 8, logx: true, logy: true };
const SHORT = { fp32: "float32", bf16: "bfloat16", fp16: "float16", fp8: "float8_e4m3fn" };
const WORDS = ["m", "e", "d", "g", "mem", "n", "tp", "c", "b", "log"];

// Tensor ranks go with GPUs, and with the engines that have them.
export const hasRanks = (state) => Boolean(state.gpu || state.memory) && ["vllm", "sglang", "all"].includes(state.engine);
export const ranksOf = (gpus) => Array.from({ length: gpus }, (_, place) => place + 1).filter((tp) => gpus % tp === 0);

export function writeLink(state) {
  const words = new URLSearchParams();
  for (const name of state.models) words.append("m", name);
  words.set("e", state.engine);
  if (state.dtype) words.set("d", state.dtype);
  if (state.gpu) words.set("g", state.gpu);
  if (state.memory) words.set("mem", state.memory);
  if (state.gpu || state.memory) words.set("n", state.gpus);
  if (state.tp && hasRanks(state)) words.set("tp", state.tp);
  words.set("c", state.context);
  words.set("b", state.batch);
  words.set("log", (state.logx ? "x" : "") + (state.logy ? "y" : ""));
  return `#${words.toString().replaceAll("%2F", "/").replaceAll("%3A", ":")}`;
}

// known: engines, dtypes and gpus by name; files: a page of files alone. The state that is meant, and a sentence for each word that was not understood.
export function readLink(hash, known) {
  const words = new URLSearchParams(hash.replace(/^#/, "")), said = [];
  if (!words.size) return [{ ...DEFAULT, models: [...DEFAULT.models] }, said];
  const state = { ...DEFAULT, gpu: "", gpus: 1, batch: 1 };
  const cut = (text) => (text.length > 60 ? `${text.slice(0, 59)}…` : text);
  const say = (key, text, used) => said.push(`${key}=${cut(text)}: ${used}`);
  const one = (key) => {
    const found = words.getAll(key);
    if (found.length > 1) said.push(`${key}: given ${found.length} times; the first is used`);
    return found.length ? found[0] : null;
  };
  for (const key of new Set(words.keys())) if (!WORDS.includes(key)) said.push(`${cut(key)}: no word of a link; not used`);

  const names = words.getAll("m").map((name) => name.trim()).filter(Boolean), models = [...new Set(names)];
  if (models.length < names.length) said.push("m: a model is given more than once; it is shown once");
  if (models.length > MOST.models) said.push(`m: ${models.length} models; expected at most ${MOST.models}; the first ${MOST.models} are used`);
  state.models = models.slice(0, MOST.models);

  const engine = one("e");
  if (engine !== null && known.engines.includes(engine)) state.engine = engine;
  else if (engine !== null) say("e", engine, `expected one of ${known.engines.join(", ")}; ${state.engine} is used`);
  const dtype = one("d"), long = SHORT[dtype] || dtype;
  if (dtype !== null && known.dtypes.includes(long)) state.dtype = long;
  else if (dtype !== null) say("d", dtype, `expected one of ${known.dtypes.filter(Boolean).join(", ")}; the config's own is used`);
  const gpu = one("g");
  if (gpu && known.gpus.includes(gpu)) state.gpu = gpu;
  else if (gpu) say("g", gpu, "not among the GPUs listed here; none is used");

  const number = (key, field, used) => {
    const text = one(key);
    if (text === null) return false;
    const value = key === "mem" ? parseBytes(text) : parseCount(text), good = value !== null && value >= 1 && value <= MOST[field];
    if (good) state[field] = value;
    else say(key, text, `expected ${TAKES[field]}; ${used ?? group(state[field])} is used`);
    return good;
  };
  if (number("mem", "memory", "none") && (state.gpu || known.files)) {
    say("mem", words.get("mem"), state.gpu ? `beside g=${state.gpu}; the GPU's own is used` : "this page has the listed GPUs alone; none is used");
    state.memory = null;
  }
  number("c", "context");
  number("b", "batch");
  const many = number("n", "gpus"), device = state.gpu || state.memory;
  if (many && !device && state.gpus > 1) say("n", words.get("n"), "no GPU beside it; not used");
  if (!device) state.gpus = 1;
  const tp = one("tp"), ranks = parseCount(tp || "");
  if (tp !== null && tp !== "0") {
    if (!hasRanks(state)) say("tp", tp, device ? `not of engine ${state.engine}; not used` : "no GPU beside it; not used");
    else if (ranksOf(state.gpus).includes(ranks)) state.tp = ranks;
    else say("tp", tp, `expected a divisor of n=${state.gpus}: ${ranksOf(state.gpus).join(", ")}; as many as fit are used`);
  }
  const log = one("log");
  if (log !== null && /^(x?y?|yx)$/.test(log)) Object.assign(state, { logx: log.includes("x"), logy: log.includes("y") });
  else if (log !== null) say("log", log, "expected x, y, xy or nothing; xy is used");
  return [state, said];
}
