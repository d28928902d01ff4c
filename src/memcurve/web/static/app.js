// The page: what is asked stands in the link, answers come once for each question, and everything that a slider moves is computed here.

import { Card } from "./card.js";
import { Chart, swatch } from "./chart.js";
import { commandLines, crossLine, options, plotLine, pathOf, pythonLines, quote } from "./commands.js";
import { Refused } from "./curve.js";
import { el, find } from "./dom.js";
import { count, group, parseBytes, parseCount, showBytes } from "./format.js";
import { MOST, TAKES, hasRanks, ranksOf, readLink, writeLink } from "./link.js";
import { Budget, crossings, pairsOf, TooMany } from "./lines.js";
import { Picker } from "./picker.js";
import { Api, Files, NeedsPython } from "./source.js";

const LONGEST = 2 ** 20;
const answers = document.documentElement.dataset.source === "files" ? new Files() : new Api();
const files = new Map(); // by name: a dropped file's own name, and the subject that it is
const shownName = (name) => name.replace(/^file:/, "");
let state, begun, rows = [], cards = [], asking = 0, crossing = 0;

// -- the link -----------------------------------------------------------------------------------------------------------

// A choice is a step back to; a move of a slider is not.
function keep(step) {
  const link = writeLink(state);
  if (link !== location.hash) history[step ? "pushState" : "replaceState"](null, "", link);
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
      subject: files.get(name)?.asked || { model: name }, file: files.get(name)?.file || null, engine, dtype: state.dtype || null, gpu: state.gpu || null, memory: state.gpu ? null : state.memory,
      gpus: state.gpus, tp: state.tp && ["vllm", "sglang"].includes(engine) ? state.tp : 0, context: state.context, batch: state.batch,
    },
  })));
}

// Answers for what is chosen now; a later question overtakes.
async function ask() {
  const turn = (asking += 1), many = state.engine === "all", asked = questions();
  document.body.setAttribute("aria-busy", "true");
  const found = await Promise.all(asked.map(async ({ name, asked: one }, index) => {
    const row = { index, name: many ? `${shownName(name)} · ${one.engine}` : shownName(name), asked: one, engine: one.engine, shown: true };
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
    found.set(`room for ${row.name.split("/").pop()}`, { y: Math.max(0, Number(room.room(context, batch))), index: row.index });
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
  find("readout").querySelector("caption").textContent = `At ${count(at, "token")}, ${count(batch, "request")}${reading === null ? "" : " (pointed at)"}`;
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
  find("table").replaceChildren(el("table", {}, el("caption", {}, `Bytes of ${count(batch, "request")}`), el("thead", {}, head), el("tbody", {}, ...lines)));
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
  const good = rows.filter((row) => !row.failed), found = [], more = [];
  for (const row of rows) {
    if (row.failed && !row.python) continue;
    const block = code(commandLines(row.asked, row.failed ? null : row, state.context, state.batch).join("\n"), `the command line of ${row.name}`);
    (found.length < 3 ? found : more).push(block);
  }
  if (more.length) found.push(el("details", {}, el("summary", {}, `${more.length} more`), ...more));
  const whole = good.filter((row) => !row.fit || row.fit.pp === 1);
  if (whole.length) found.push(code(plotLine(whole, state.batch), "the command line of the figure"));
  if (good.length) found.push(code(["import memcurve", ...good.map((row) => pythonLines(row.asked, row, state.context, state.batch))].join("\n\n"), "the lines of Python"));
  const own = state.models.flatMap((name) => files.get(name)?.file || []), twice = own.find((name, place) => own.indexOf(name) !== place);
  const texts = found.map((block) => block.textContent).join("\n\n");
  if (find("commands").dataset.text === texts) return;
  find("commands").dataset.text = texts;
  if (twice) found.unshift(el("p", { class: "hint" }, `Several files here are called ${twice}: give the commands the path of each.`));
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
    say(`At ${count(context, "token")}, batch ${group(batch)}. ${said.join(". ")}`);
    performance.measure("memcurve-render", { start: begin, end: performance.now() });
  });
}

function change(values, { questions: again = false, curves = false, step = false } = {}) {
  const begin = performance.now();
  Object.assign(state, values);
  tell("");
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
      try {
        for (const [context, cheaper] of crossings(a, b, batch, 1n, last, budget)) found.push({ context, pair: cheaper ? [row, other] : [other, row] });
      } catch (error) { if (!(error instanceof TooMany)) throw error; whole = false; }
    }));
    found.sort((a, b) => Number(a.context - b.context));
    chart.set({ marks: found.length > 200 ? [] : found.map(({ context, pair }) => ({ x: Number(context), y: Number(pair[0].at(context, batch)), names: pair.map((one) => one.name) })) });
    const items = found.slice(0, 20).map(({ context, pair }) => el("li", {}, `from ${count(context, "token")} on ${pair[0].name} takes less than ${pair[1].name}`));
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

// Says beside a field what is wrong with it, and what is used meanwhile; nothing where it is right.
function check(id, good, used) {
  const field = find(id), place = find(`${id}-error`), typed = field.value.trim().slice(0, 60);
  field.setAttribute("aria-invalid", String(!good));
  place.hidden = good;
  place.textContent = good ? "" : `${typed || "nothing"}: expected ${TAKES[id]}; ${used} is still used`;
  return good;
}

// So much memory, as short as it is exact.
const showExact = (bytes) => (parseBytes(showBytes(bytes)) === bytes ? showBytes(bytes) : `${group(bytes)} B`);

function fill() {
  const set = (id, value) => {
    const field = find(id);
    if (document.activeElement === field) return;
    if (field.value !== String(value)) field.value = value;
    check(id, true);
  };
  find("engine").value = state.engine;
  find("dtype").value = state.dtype;
  find("gpu").value = state.gpu || (state.memory ? "bytes" : "");
  find("memory-field").hidden = find("gpu").value !== "bytes";
  set("memory", state.memory ? showExact(state.memory) : "");
  const none = !state.gpu && find("gpu").value !== "bytes";
  find("gpus").disabled = none;
  find("tp").disabled = !hasRanks(state);
  set("gpus", state.gpus);
  const ranks = ranksOf(state.gpus);
  find("tp").replaceChildren(el("option", { value: "0" }, "as fits"), ...ranks.map((tp) => el("option", { value: tp }, String(tp))));
  find("tp").value = ranks.includes(state.tp) ? state.tp : 0;
  for (const key of ["context", "batch"]) {
    set(key, group(state[key]));
    const slider = find(`${key}-slider`);
    if (onSlider(Number(slider.value)) !== state[key]) slider.value = offSlider(state[key]);
    slider.setAttribute("aria-valuetext", count(state[key], key === "context" ? "token" : "request"));
  }
  find("logx").checked = state.logx;
  find("logy").checked = state.logy;
  const engine = begun.engines.find((one) => one.name === state.engine);
  find("how").textContent = engine ? engine.how : "every engine, one curve each";
  document.title = `${state.models.map((name) => shownName(name).split("/").pop()).join(", ") || "nothing chosen"} · memcurve`;
  chosen();
}

function chosen() {
  const list = find("chosen"), names = state.models.join("\n"), many = state.engine === "all" ? begun.engines.length : 1;
  if (list.dataset.names === `${names} ${many}`) return;
  list.dataset.names = `${names} ${many}`;
  list.replaceChildren(...state.models.map((name, place) => {
    const shown = shownName(name);
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
  if (state.models.length >= MOST.models) {
    problem.textContent = `at most ${MOST.models} models: remove one first`;
    problem.hidden = false;
    return undefined;
  }
  return change({ models: [...state.models, name] }, { questions: true, step: true });
}

// The name of a file that was dropped: another file that is called the same gets a number.
function kept(own, subject) {
  const text = JSON.stringify(subject);
  for (let number = 1; ; number += 1) {
    const shown = number === 1 ? own : `${own.slice(0, 190)} (${number})`, name = `file:${shown}`, known = files.get(name);
    if (known && state.models.includes(name) && known.text !== text) continue;
    files.set(name, { text, file: own, asked: { ...subject, name: shown.slice(0, 200) } });
    return name;
  }
}

async function open(file) {
  const problem = find("file-error");
  problem.hidden = true;
  try {
    const subject = await answers.open(file);
    add(kept(file.name, subject));
  } catch (error) {
    problem.replaceChildren(error.message);
    if (error instanceof NeedsPython) problem.append(code(`memcurve fit ${quote(pathOf(file.name))} --gpu H100-80G --engine vllm`, "the command line"));
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
    if (check("memory", Boolean(value), showExact(state.memory || 0))) change({ memory: value }, { questions: true, step: true });
  });
  on("gpus", "change", () => {
    const value = parseCount(find("gpus").value);
    if (check("gpus", value !== null && value >= 1 && value <= MOST.gpus, group(state.gpus))) change({ gpus: value, tp: 0 }, { questions: true, step: true });
  });
  on("tp", "change", () => change({ tp: Number(find("tp").value) }, { questions: true, step: true }));
  for (const key of ["context", "batch"]) {
    on(`${key}-slider`, "input", () => change({ [key]: onSlider(Number(find(`${key}-slider`).value)) }, { curves: key === "batch" }));
    on(key, "change", () => {
      const value = parseCount(find(key).value);
      if (!check(key, value !== null && value >= 1 && value <= MOST[key], group(state[key]))) return;
      change({ [key]: value }, { curves: key === "batch" });
      find(key).value = group(value);
    });
    on(key, "keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); find(key).dispatchEvent(new Event("change")); } });
  }
  on("logx", "change", () => change({ logx: find("logx").checked }, { curves: true }));
  on("logy", "change", () => change({ logy: find("logy").checked }, { curves: true }));
  on("whole", "click", () => chart.zoom(null));
  on("numbers", "toggle", numbers);
  on("file", "change", () => { [...find("file").files].forEach(open); find("file").value = ""; });
  for (const kind of ["dragover", "dragenter"]) document.addEventListener(kind, (event) => { if (event.dataTransfer?.types.includes("Files")) { event.preventDefault(); find("drop").classList.add("over"); } });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) find("drop").classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    find("drop").classList.remove("over");
    [...event.dataTransfer.files].forEach(open);
  });
  window.addEventListener("popstate", restore);
}

// The state that the link asks for, and in a line what of it is not understood.
function restore() {
  const dtypes = [...find("dtype").options].map((one) => one.value);
  const [found, said] = readLink(location.hash, { engines: [...begun.engines.map((one) => one.name), "all"], dtypes, gpus: begun.gpus.map((one) => one.name), files: answers.files });
  state = found;
  tell(said.length ? `Not all of the link was understood. ${said.join(". ")}.` : "");
  fill();
  ask();
}

function tell(text) {
  find("problem").textContent = text;
  find("problem").hidden = !text;
}

async function start() {
  chart = new Chart(find("figure"), {
    cursor: (context, keys) => { reading = context; readout(); if (keys) say(find("figure").getAttribute("aria-valuetext")); },
    pick: (context) => change({ context: Math.max(1, context) }),
    view: () => { find("whole").hidden = !chart.view; },
  });
  begun = await answers.start();
  find("engine").replaceChildren(...begun.engines.map((one) => el("option", {}, one.name)), el("option", { value: "all" }, "all engines"));
  const vendors = [...new Set(begun.gpus.map((one) => one.vendor))];
  find("gpu").replaceChildren(
    el("option", { value: "" }, "none: state alone"),
    ...(answers.files ? [] : [el("option", { value: "bytes" }, "another size …")]),
    ...vendors.map((vendor) => el("optgroup", { label: vendor }, ...begun.gpus.filter((one) => one.vendor === vendor).map((one) => el("option", { value: one.name }, `${one.name} (${showBytes(one.memory_bytes)})`)))),
  );
  if (answers.files) find("drop").querySelector("label").textContent = "Drop a config.json or a .gguf file here for the command that reads it";
  const picker = new Picker(find("search"), find("found"), add, say);
  picker.set(begun.models, begun.patterns);
  wire();
  restore();
}

start().catch((error) => tell(error.message));
