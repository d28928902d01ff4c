// The page of plot -o x.html: curves by the library's own terms, at one batch, with the modules of the page in one file.

import { Chart, swatch } from "./chart.js";
import { compile } from "./curve.js";
import { el, find } from "./dom.js";
import { count, group, parseBytes, showBytes } from "./format.js";

const data = JSON.parse(find("data").textContent);
const batch = BigInt(data.batch);
const series = data.curves.map((curve, index) => {
  const terms = curve.terms.map(([weight, slots]) => [BigInt(weight), compile(slots)]);
  const [share, whole] = curve.share.map(BigInt);
  const at = (context) => (context < curve.first ? null : terms.reduce((total, [weight, slots]) => total + weight * slots(BigInt(context), batch, 0n), 0n) * share / whole);
  return { name: curve.name, note: curve.note, kinks: curve.kinks, index, at, shown: true };
});
const marks = data.crossings.map((one) => ({ x: one.x, y: one.y, names: one.names }));
const given = data.memory.map(([name, y]) => ({ name, y, shown: true }));
let memory = null, reading = null, spoken = 0;

const lines = series.map((one) => {
  const tick = el("input", { type: "checkbox", onchange: () => { one.shown = tick.checked; draw(); } });
  tick.checked = true;
  const exact = el("span"), near = el("small");
  return { one, exact, near, row: el("tr", {}, el("td", {}, el("label", { title: one.note }, tick, swatch(one.index), el("span", {}, one.name))), el("td", {}, exact, " ", near)) };
});
const caption = el("caption");
find("readout").replaceChildren(el("table", {}, caption, el("tbody", {}, ...lines.map((line) => line.row))));

const chart = new Chart(find("figure"), {
  cursor: (context, keys) => { reading = context; read(keys); },
  view: () => { find("whole").hidden = !chart.view; },
});

function read(keys = false) {
  const context = reading ?? data.high;
  caption.textContent = `At ${count(context, "token")}, batch ${group(batch)}`;
  for (const { one, exact, near } of lines) {
    const value = one.at(context);
    exact.textContent = value === null ? "—" : `${group(value)} B`;
    near.textContent = value === null ? "" : showBytes(value);
  }
  clearTimeout(spoken);
  if (keys) spoken = setTimeout(() => { find("status").textContent = find("figure").getAttribute("aria-valuetext"); }, 400);
}

function draw() {
  chart.set({ series, marks, low: data.low, high: Math.max(data.high, data.low + 1), logx: find("logx").checked, logy: find("logy").checked, lines: [...given.filter((one) => one.shown), ...(memory ? [memory] : [])] });
  read();
}

find("given").append(...given.map((one) => {
  const tick = el("input", { type: "checkbox", onchange: () => { one.shown = tick.checked; draw(); } });
  tick.checked = true;
  return el("label", {}, tick, el("span", {}, `${one.name}: ${showBytes(one.y)}`));
}));
find("gpu").append(...data.gpus.map(([name, bytes]) => el("option", { value: bytes }, `${name} (${showBytes(bytes)})`)));
find("gpu").addEventListener("change", () => {
  const chosen = find("gpu").selectedOptions[0];
  memory = chosen.value ? { name: chosen.textContent.replace(/ \(.*$/, ""), y: Number(chosen.value) } : null;
  find("memory").value = "";
  check();
  draw();
});
// The bytes that are typed; null for none, and for what is no size, which it says.
function check() {
  const typed = find("memory").value.trim(), bytes = parseBytes(typed), good = !typed || Boolean(bytes);
  find("memory").setAttribute("aria-invalid", String(!good));
  find("memory-error").hidden = good;
  find("memory-error").textContent = good ? "" : `${typed.slice(0, 60)}: expected a size such as 60GiB, at most 1 PiB; no line is drawn`;
  return bytes;
}
find("memory").addEventListener("change", () => {
  const bytes = check();
  memory = bytes ? { name: "memory", y: bytes } : null;
  find("gpu").value = "";
  draw();
});
for (const id of ["logx", "logy"]) {
  find(id).checked = data.log.includes(id.slice(-1));
  find(id).addEventListener("change", draw);
}
find("whole").addEventListener("click", () => chart.zoom(null));
draw();
