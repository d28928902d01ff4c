// The page: what is asked stands in the link, answers come once for each question, and everything that a slider moves is computed here.

import { Card } from "./card.js";
import { Chart, swatch } from "./chart.js";
import { commandLines, crossLine, options, plotLine, pythonLines, quote, source as nameOf } from "./commands.js";
import { Refused } from "./curve.js";
import { el, find } from "./dom.js";
import { group, parseBytes, parseCount, showBytes, showTokens } from "./format.js";
import { Budget, crossings, pairsOf, TooMany } from "./lines.js";
import { Picker } from "./picker.js";
import { Api, Files, NeedsPython } from "./source.js";

const LONGEST = 2 ** 20, MOST_MODELS = 8, MOST_CONTEXT = 2 ** 23, MOST_BATCH = 4096;
const DEFAULT = { models: ["Qwen/Qwen3-Next-80B-A3B-Thinking", "meta-llama/Meta-Llama-3.1-70B"], engine: "vllm", dtype: "", gpu: "H100 80GB", memory: null, gpus: 4, tp: 0, context: 32768, batch: 8, logx: true, logy: true };
const answers = document.documentElement.dataset.source === "files" ? new Files() : new Api();
const files = new Map(); // by name: the subject that a dropped file is
let state, begun, rows = [], cards = [], asking = 0, crossing = 0, gpus = [];

// -- the link -----------------------------------------------------------------------------------------------------------

function readLink() {
  const words = new URLSearchParams(location.hash.slice(1));
  const number = (key, most) => { const value = parseCount(words.get(key) || ""); return value && value <= most ? value : undefined; };
  const found = {
    models: words.getAll("m").slice(0, MOST_MODELS), engine: words.get("e") || undefined, dtype: words.get("d") || undefined,
    gpu: words.get("g") ?? undefined, memory: number("mem", 2 ** 50), gpus: number("n", 64), tp: number("tp", 64),
    context: number("c", MOST_CONTEXT), batch: number("b", MOST_BATCH),
  };
  const log = words.get("log");
  const given = Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined));
  if (!words.size) return { ...DEFAULT };
  return { ...DEFAULT, gpu: "", gpus: 1, batch: 1, ...given, ...(log === null ? {} : { logx: log.includes("x"), logy: log.includes("y") }) };
}

function link() {
  const words = new URLSearchParams();
  for (const name of state.models) words.append("m", name);
  words.set("e", state.engine);
  if (state.dtype) words.set("d", state.dtype);
  if (state.gpu) words.set("g", state.gpu);
  if (state.memory) words.set("mem", state.memory);
  if (state.gpu || state.memory) words.set("n", state.gpus);
  if (state.tp) words.set("tp", state.tp);
  words.set("c", state.context);
  words.set("b", state.batch);
  words.set("log", (state.logx ? "x" : "") + (state.logy ? "y" : ""));
  return `#${words.toString().replaceAll("%2F", "/").replaceAll("%3A", ":")}`;
}

// A choice is a step back to; a move of a slider is not.
function keep(step) {
  if (link() !== location.hash) history[step ? "pushState" : "replaceState"](null, "", link());
}

let waiting = 0;
function keepSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(() => keep(false), 250);
}

// -- questions ------------------------------------------------------------------------------------------------------------

function questions() {
  const engines = state.engine === "all" ? begun.engines.map((one) => one.name) : [state.engine];
  return state.models.flatMap((name) => engines.map((engine) => ({
    name, asked: {
      subject: files.get(name) || { model: name }, engine, dtype: state.dtype || null, gpu: state.gpu || null, memory: state.gpu ? null : state.memory,
      gpus: state.gpus, tp: state.tp && ["vllm", "sglang"].includes(engine) ? state.tp : 0, context: state.context, batch: state.batch,
    },
  })));
}

// Answers for what is chosen now; a later question overtakes.
async function ask() {
  const turn = (asking += 1), many = state.engine === "all", asked = questions();
  document.body.setAttribute("aria-busy", "true");
  const found = await Promise.all(asked.map(async ({ name, asked: one }, index) => {
    const row = { index, name: many ? `${name} · ${one.engine}` : name, asked: one, engine: one.engine, shown: true };
    const lost = name.startsWith("file:") && !files.has(name);
    try {
      if (lost) throw new Error(`${name.slice(5)}: a file stays on the machine that it was dropped on; drop it here again`);
      return { ...row, ...(await answers.ask(one)), name: row.name };
    } catch (error) {
      return { ...row, failed: error.message, python: error instanceof NeedsPython };
    }
  }));
  if (turn !== asking) return;
  const hidden = new Set(rows.filter((row) => !row.shown).map((row) => row.name));
  rows = found.map((row) => ({ ...row, shown: !hidden.has(row.name), at: evaluate(row), options: row.failed ? {} : options(row) }));
  cards = rows.map((row) => new Card(row));
  find("cards").replaceChildren(...cards.map((card) => card.element));
  document.body.removeAttribute("aria-busy");
  draw();
  render();
}

// State by context and batch; on the fullest GPU where there are several. quiet: null where the engine refuses.
function evaluate(row) {
  if (row.failed) return () => null;
  const bytes = row.rooms ? (context, batch) => row.rooms.state(context, batch) : (context, batch) => row.curve.bytes(row.shared ? context * batch : context, batch);
  return (context, batch, quiet) => {
    if (!quiet) return bytes(context, batch);
    try { return bytes(context, batch); } catch (error) { if (error instanceof Refused) return null; throw error; }
  };
}

// -- pictures and numbers -----------------------------------------------------------------------------------------------

let chart, reading = null;

function memoryLines() {
  const found = new Map(), context = BigInt(state.context), batch = BigInt(state.batch);
  for (const row of rows) {
    if (!row.rooms || !row.shown) continue;
    const room = row.rooms.rooms.reduce((a, b) => (a.room(context, batch) < b.room(context, batch) ? a : b));
    found.set(`room of ${row.name.split("/").pop()}`, { y: Math.max(0, Number(room.room(context, batch))), index: row.index });
  }
  return found.size > 4 ? [] : [...found].map(([name, line]) => ({ name, ...line }));
}

function draw() {
  const batch = BigInt(state.batch);
  chart.set({
    series: rows.filter((row) => !row.failed).map((row) => ({ name: row.name, index: row.index, shown: row.shown, at: (context) => row.at(BigInt(context), batch, true) })),
    lines: memoryLines(), low: 1, high: Math.max(LONGEST, state.context), logx: state.logx, logy: state.logy, here: state.context, marks: chart.marks,
  });
  cross();
}

let readoutRows = [];
function readout() {
  const batch = BigInt(state.batch), at = BigInt(reading ?? state.context);
  if (readoutRows.length !== rows.length || readoutRows.some((one, i) => one.row !== rows[i])) {
    readoutRows = rows.map((row) => ({ row, exact: el("span"), near: el("small") }));
    const lines = readoutRows.map(({ row, exact, near }) => {
      const tick = el("input", { type: "checkbox", onchange: () => { row.shown = tick.checked; draw(); } });
      tick.checked = row.shown;
      return el("tr", {}, el("td", {}, el("label", {}, tick, swatch(row.index), el("span", {}, row.name))), el("td", {}, exact, " ", near));
    });
    const head = el("caption");
    find("readout").replaceChildren(el("table", {}, head, el("tbody", {}, ...lines)));
  }
  if (!rows.length) return;
  find("readout").querySelector("caption").textContent = `At ${group(at)} tokens, ${group(batch)} request${batch === 1n ? "" : "s"}${reading === null ? "" : " (pointed at)"}`;
  for (const { row, exact, near } of readoutRows) {
    const value = row.failed ? null : row.at(at, batch, true);
    exact.textContent = value === null ? "—" : `${group(value)} B`;
    near.textContent = value === null ? "" : showBytes(value);
  }
}

function numbers() {
  if (!find("numbers").open) return;
  const batch = BigInt(state.batch), good = rows.filter((row) => !row.failed);
  const contexts = [...new Set([...Array.from({ length: 11 }, (_, power) => 1024 * 2 ** power), state.context])].sort((a, b) => a - b);
  const head = el("tr", {}, el("th", { scope: "col" }, "tokens"), ...good.map((row) => el("th", { scope: "col" }, row.name)));
  const lines = contexts.map((context) => el("tr", {}, el("th", { scope: "row" }, group(context)), ...good.map((row) => { const value = row.at(BigInt(context), batch, true); return el("td", {}, value === null ? "—" : group(value)); })));
  find("table").replaceChildren(el("table", {}, el("caption", {}, `Bytes of ${group(batch)} request${batch === 1n ? "" : "s"}`), el("thead", {}, head), el("tbody", {}, ...lines)));
}

// Lines break between words, not at the hyphens of options nor between an option and its value.
function words(text) {
  return text.split(/(--?[A-Za-z][\w-]* (?:'[^']*'|\S+)|'[^']*'|[^\s']+)/).map((word) => (/\S/.test(word) ? el("span", {}, word) : word));
}

function code(text, name) {
  const button = el("button", { type: "button", "aria-label": `Copy ${name}` }, "Copy");
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text); say("Copied"); button.textContent = "Copied"; } catch {
      const range = document.createRange();
      range.selectNodeContents(block.querySelector("pre"));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  const block = el("div", { class: "code" }, el("pre", {}, ...words(text)), button);
  return block;
}

function commands() {
  const good = rows.filter((row) => !row.failed), shown = rows.length > 3 ? rows.slice(0, 3) : rows;
  const found = [];
  for (const row of shown) {
    const asked = row.asked, answer = row.failed ? null : row;
    if (row.failed && !row.python) continue;
    found.push(code(commandLines(asked, answer, state.context, state.batch).join("\n"), `the command line of ${row.name}`));
  }
  if (good.length) found.push(code(plotLine(good, state.batch), "the command line of the figure"), code(pythonLines(good[0].asked, good[0], state.context, state.batch), "the lines of Python"));
  const texts = found.map((block) => block.querySelector("pre").textContent).join("\n\n");
  if (find("commands").dataset.text === texts) return;
  find("commands").dataset.text = texts;
  find("commands").replaceChildren(...(found.length ? found : [el("p", { class: "hint" }, "Choose a model.")]));
}

let spoken = 0;
function say(text) {
  clearTimeout(spoken);
  spoken = setTimeout(() => { find("status").textContent = text; }, 350);
}

// All that a slider moves. At most once a frame.
let due = false;
function render() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    const begin = performance.now(), context = BigInt(state.context), batch = BigInt(state.batch);
    const said = cards.map((card) => card.update(context, batch));
    readout();
    numbers();
    commands();
    say(`At ${group(context)} tokens, batch ${group(batch)}. ${said.join(". ")}`);
    performance.measure("memcurve-render", { start: begin, end: performance.now() });
  });
}

function change(values, { questions: again = false, curves = false, step = false } = {}) {
  const begin = performance.now();
  Object.assign(state, values);
  fill();
  if (step) keep(true); else keepSoon();
  if (again) ask();
  else {
    if (curves) draw();
    else chart.set({ here: state.context, high: Math.max(LONGEST, state.context) });
    render();
  }
  performance.measure("memcurve-change", { start: begin, end: performance.now() });
}

// -- crossings -------------------------------------------------------------------------------------------------------------

// The crossings of all pairs, looked for once things are still. Rows of several stages have no one curve.
function cross() {
  clearTimeout(crossing);
  crossing = setTimeout(() => {
    const batch = BigInt(state.batch), last = BigInt(LONGEST), place = find("crossings");
    const good = rows.filter((row) => !row.failed && row.shown && (!row.rooms || row.rooms.rooms.length === 1) && row.at(1n, batch, true) !== null);
    const found = [], budget = new Budget();
    let whole = true;
    good.forEach((row, index) => good.slice(index + 1).forEach((other) => {
      const [a, b] = [row, other].map((one) => pairsOf(data(one), batch, one.shared));
      const first = row.shared || other.shared ? 1n : 0n;
      try {
        for (const [context, cheaper] of crossings(a, b, batch, first, last, budget)) found.push({ context, pair: cheaper ? [row, other] : [other, row] });
      } catch (error) { if (!(error instanceof TooMany)) throw error; whole = false; }
    }));
    found.sort((a, b) => Number(a.context - b.context));
    chart.set({ marks: found.length > 200 ? [] : found.map(({ context, pair }) => ({ x: Number(context), y: Number(pair[0].at(context, batch)), names: pair.map((one) => one.name) })) });
    const items = found.slice(0, 20).map(({ context, pair }) => el("li", {}, `from ${group(context)} tokens on ${pair[0].name} takes less than ${pair[1].name}`));
    if (found.length > 20) items.push(el("li", {}, `and ${group(found.length - 20)} more`));
    place.replaceChildren();
    if (good.length < 2) return;
    place.append(el("h3", {}, "Crossings"), items.length || !whole ? el("ul", { class: items.length > 4 ? "many" : null }, ...items) : el("p", { class: "hint" }, "none up to 1M tokens"));
    if (!whole) place.append(el("p", { class: "hint" }, "Some staircases come close too often to look at here; all of them:"), code(crossLine(good, state.batch), "the command line of the crossings"));
  }, 120);
}

const data = (row) => (row.rooms ? row.rooms.curve : row.curve).data;

// -- controls ----------------------------------------------------------------------------------------------------------------

// Sliders go in quarters of a doubling: 1, 2, 3, 4, 5, 6, 7, 8, 10, 12 …
const onSlider = (value) => Math.max(1, Math.round(2 ** Math.floor(value / 4) * (4 + (value % 4)) / 4));
const offSlider = (number) => { const power = Math.floor(Math.log2(number)); return Math.round(4 * power + 4 * (number / 2 ** power - 1)); };

function fill() {
  const set = (id, value) => { const field = find(id); if (field.value !== String(value) && document.activeElement !== field) field.value = value; };
  find("engine").value = state.engine;
  find("dtype").value = state.dtype;
  find("gpu").value = state.gpu || (state.memory ? "bytes" : "");
  find("memory-field").hidden = find("gpu").value !== "bytes";
  set("memory", state.memory ? showBytes(state.memory) : "");
  const none = !state.gpu && find("gpu").value !== "bytes";
  find("gpus").disabled = none;
  find("tp").disabled = none || !["vllm", "sglang", "all"].includes(state.engine);
  set("gpus", state.gpus);
  const ranks = Array.from({ length: state.gpus }, (_, place) => place + 1).filter((tp) => state.gpus % tp === 0 && tp <= 8);
  find("tp").replaceChildren(el("option", { value: "0" }, "as fits"), ...ranks.map((tp) => el("option", { value: tp }, String(tp))));
  find("tp").value = ranks.includes(state.tp) ? state.tp : 0;
  for (const key of ["context", "batch"]) {
    set(key, group(state[key]));
    const slider = find(`${key}-slider`);
    if (onSlider(Number(slider.value)) !== state[key]) slider.value = offSlider(state[key]);
    slider.setAttribute("aria-valuetext", `${group(state[key])} ${key === "context" ? "tokens" : state[key] === 1 ? "request" : "requests"}`);
  }
  find("logx").checked = state.logx;
  find("logy").checked = state.logy;
  const engine = begun.engines.find((one) => one.name === state.engine);
  find("how").textContent = engine ? engine.how : "every engine, one curve each";
  document.title = `${state.models.map((name) => name.split("/").pop()).join(", ") || "nothing chosen"} · memcurve`;
  chosen();
}

function chosen() {
  const list = find("chosen"), names = state.models.join("\n"), many = state.engine === "all" ? begun.engines.length : 1;
  if (list.dataset.names === `${names} ${many}`) return;
  list.dataset.names = `${names} ${many}`;
  list.replaceChildren(...state.models.map((name, place) => {
    const shown = name.replace(/^file:/, "");
    const button = el("button", { type: "button", "aria-label": `Remove ${shown}` }, "✕");
    button.addEventListener("click", () => {
      change({ models: state.models.filter((_, other) => other !== place) }, { questions: true, step: true });
      (list.querySelectorAll("button")[Math.min(place, state.models.length - 1)] || find("search")).focus();
    });
    return el("li", {}, swatch(place * many), el("span", {}, shown), button);
  }));
}

function add(name) {
  const problem = find("file-error");
  problem.hidden = true;
  if (state.models.includes(name)) return change({}, { questions: files.has(name) });
  if (state.models.length >= MOST_MODELS) {
    problem.textContent = `at most ${MOST_MODELS} models: remove one first`;
    problem.hidden = false;
    return undefined;
  }
  return change({ models: [...state.models, name] }, { questions: true, step: true });
}

async function open(file) {
  const problem = find("file-error");
  problem.hidden = true;
  try {
    const subject = await answers.open(file), name = `file:${file.name}`;
    files.set(name, subject);
    add(name);
  } catch (error) {
    problem.replaceChildren(error.message);
    if (error instanceof NeedsPython) problem.append(code(`memcurve fit ${quote(`./${file.name}`)} --gpu H100-80G --engine vllm`, "the command line"));
    problem.hidden = false;
  }
}

function wire() {
  const on = (id, event, act) => find(id).addEventListener(event, act);
  on("controls", "submit", (event) => event.preventDefault());
  on("engine", "change", () => change({ engine: find("engine").value }, { questions: true, step: true }));
  on("dtype", "change", () => change({ dtype: find("dtype").value }, { questions: true, step: true }));
  on("gpu", "change", () => {
    const value = find("gpu").value;
    if (value === "bytes") { find("memory-field").hidden = false; find("memory").focus(); }
    change(value === "bytes" ? { gpu: "", memory: state.memory || 80 * 2 ** 30 } : { gpu: value, memory: null }, { questions: true, step: true });
  });
  on("memory", "change", () => {
    const value = parseBytes(find("memory").value);
    find("memory").setAttribute("aria-invalid", String(!value));
    if (value) change({ memory: value }, { questions: true, step: true });
  });
  on("gpus", "change", () => {
    const value = Math.round(Number(find("gpus").value));
    const good = value >= 1 && value <= 64;
    find("gpus").setAttribute("aria-invalid", String(!good));
    if (good) change({ gpus: value, tp: 0 }, { questions: true, step: true });
  });
  on("tp", "change", () => change({ tp: Number(find("tp").value) }, { questions: true, step: true }));
  for (const [key, most] of [["context", MOST_CONTEXT], ["batch", MOST_BATCH]]) {
    on(`${key}-slider`, "input", () => change({ [key]: onSlider(Number(find(`${key}-slider`).value)) }, { curves: key === "batch" }));
    on(key, "change", () => {
      const value = parseCount(find(key).value), good = value !== null && value >= 1 && value <= most;
      find(key).setAttribute("aria-invalid", String(!good));
      if (!good) return;
      change({ [key]: value }, { curves: key === "batch" });
      find(key).value = group(value);
    });
    on(key, "keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); find(key).dispatchEvent(new Event("change")); } });
  }
  on("logx", "change", () => change({ logx: find("logx").checked }, { curves: true }));
  on("logy", "change", () => change({ logy: find("logy").checked }, { curves: true }));
  on("whole", "click", () => chart.zoom(null));
  on("numbers", "toggle", numbers);
  on("file", "change", () => { const [file] = find("file").files; if (file) open(file); find("file").value = ""; });
  for (const kind of ["dragover", "dragenter"]) document.addEventListener(kind, (event) => { if (event.dataTransfer?.types.includes("Files")) { event.preventDefault(); find("drop").classList.add("over"); } });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) find("drop").classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    find("drop").classList.remove("over");
    [...event.dataTransfer.files].forEach(open);
  });
  window.addEventListener("popstate", () => { state = readLink(); restore(); });
}

function restore() {
  if (![...begun.engines.map((one) => one.name), "all"].includes(state.engine)) state.engine = DEFAULT.engine;
  if (state.gpu && !gpus.includes(state.gpu)) {
    find("problem").textContent = `GPU ${state.gpu}: not among those listed here`;
    find("problem").hidden = false;
    state.gpu = "";
  } else find("problem").hidden = true;
  fill();
  ask();
}

async function start() {
  chart = new Chart(find("figure"), {
    cursor: (context) => { reading = context; readout(); },
    pick: (context) => change({ context: Math.max(1, context) }),
    view: () => { find("whole").hidden = !chart.view; },
  });
  begun = await answers.start();
  gpus = begun.gpus.map((one) => one.name);
  find("engine").replaceChildren(...begun.engines.map((one) => el("option", {}, one.name)), el("option", { value: "all" }, "all engines"));
  const vendors = [...new Set(begun.gpus.map((one) => one.vendor))];
  find("gpu").replaceChildren(
    el("option", { value: "" }, "none: state alone"),
    ...(answers.files ? [] : [el("option", { value: "bytes" }, "another size …")]),
    ...vendors.map((vendor) => el("optgroup", { label: vendor }, ...begun.gpus.filter((one) => one.vendor === vendor).map((one) => el("option", { value: one.name }, `${one.name} (${showBytes(one.memory_bytes)})`)))),
  );
  const picker = new Picker(find("search"), find("found"), add);
  picker.set(begun.models, begun.patterns);
  wire();
  state = readLink();
  restore();
}

start().catch((error) => {
  find("problem").textContent = error.message;
  find("problem").hidden = false;
});
