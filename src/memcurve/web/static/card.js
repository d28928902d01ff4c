// One answer: bytes, what fits, and the bar of a GPU.

import { swatch } from "./chart.js";
import { Refused } from "./curve.js";
import { el } from "./dom.js";
import { count, group, showBytes, showTokens } from "./format.js";

const PARTS = [
  ["weights", "weights"], ["kv", "keys and values"], ["state", "states"], ["padding", "padding"], ["aside", "set aside"], ["free", "free"],
];
const STATE = PARTS.slice(1, 4);

// Sizes by what they are for, as a table.
class Sizes {
  constructor(parts, name) {
    this.cells = Object.fromEntries(parts.map(([key]) => [key, [el("span"), el("small"), el("th", { scope: "row" })]]));
    const rows = Object.values(this.cells).map(([exact, near, head]) => el("tr", {}, head, el("td", {}, exact, " ", near)));
    this.parts = parts;
    this.element = el("div", { class: "scroll" }, el("table", { class: "parts", "aria-label": name }, el("tbody", {}, ...rows)));
  }

  update(sizes) {
    for (const [key, word] of this.parts) {
      const size = sizes[key], lacks = size < 0n, [exact, near, head] = this.cells[key];
      head.replaceChildren(el("span", { class: `key ${lacks ? "lack" : key}` }), lacks ? "lacking" : word);
      exact.textContent = `${group(lacks ? -size : size)} B`;
      near.textContent = showBytes(lacks ? -size : size);
      exact.closest("tr").hidden = size === 0n && STATE.some(([one]) => one === key);
    }
  }
}

export class Card {
  constructor(row) {
    this.row = row;
    this.total = el("p", { class: "total" });
    this.verdict = el("p", { class: "verdict" });
    this.facts = el("dl", { class: "facts" });
    this.parts = new Sizes(STATE, "state");
    this.stages = row.rooms ? row.rooms.rooms.map((room, place) => new Bar(room, row, place)) : [];
    const what = row.failed ? "" : `${row.structure} · ${row.engine} · ${row.dtype}${row.fit ? ` · ${split(row.fit)}` : row.ranks ? ` · tp ${row.ranks}` : ""}`;
    const notes = [...new Set(row.notes || [])];
    this.element = el(
      "section", { class: "panel card", "aria-label": row.name },
      el("h3", {}, swatch(row.index), el("span", {}, row.name)),
      what ? el("p", { class: "hint" }, what) : null,
      ...(row.failed ? [el("p", { class: "error" }, row.failed)] : [this.total, this.verdict, ...this.shown(), this.facts]),
      row.why ? el("p", { class: "why" }, row.python ? `${row.why} the command is below.` : `What fits: ${row.why}`) : null,
      notes.length ? el("details", {}, el("summary", {}, `${notes.length} note${notes.length > 1 ? "s" : ""}`), el("ul", { class: "notes" }, ...notes.map((note) => el("li", {}, note)))) : null,
    );
  }

  // Bars of stages; of many only the fullest in view.
  shown() {
    if (!this.stages.length) return [this.parts.element];
    if (this.stages.length < 2) return this.stages.map((bar) => bar.element);
    return [this.stages[0].element, el("details", {}, el("summary", {}, `the other ${this.stages.length - 1} stages`), ...this.stages.slice(1).map((bar) => bar.element))];
  }

  // context and batch: BigInt. A sentence for the live region.
  update(context, batch) {
    const row = this.row;
    if (row.failed) return `${row.name}: ${row.failed}`;
    try { row.bytes = row.at(context, batch); } catch (error) {
      if (!(error instanceof Refused)) throw error;
      row.bytes = null;
      this.total.replaceChildren(error.message);
      this.verdict.textContent = "";
      this.facts.replaceChildren();
      [this.parts, ...this.stages].forEach((one) => { one.element.hidden = true; });
      return `${row.name}: ${error.message}`;
    }
    this.total.replaceChildren(`${group(row.bytes)} B `, el("small", {}, `${showBytes(row.bytes)} of state${row.fit && row.fit.pp > 1 ? " on the fullest GPU" : row.ranks || (row.fit && row.fit.gpus > 1) ? " on each GPU" : ""}`));
    let said = `${row.name}: ${group(row.bytes)} bytes`;
    if (row.rooms) {
      const [most, why] = row.rooms.requests(context), longest = row.rooms.longest(batch), fits = most >= batch;
      this.verdict.className = `verdict ${fits ? "yes" : "no"}`;
      this.verdict.textContent = `${fits ? "✓ Fits" : "✗ Does not fit"}: ${count(batch, "request")} of ${count(context, "token")}`;
      this.fact(
        ["Most requests", most >= 2n ** 31n ? "any number" : `${group(most)}, bound by ${why}`],
        ["Largest context", longest === null ? "without an end" : `${count(longest, "token")}${longest && /[kM]$/.test(showTokens(Number(longest))) ? ` (${showTokens(Number(longest))})` : ""}, for ${count(batch, "request")}`],
        ["Weights", row.fit.weights],
      );
      this.stages.forEach((bar) => { bar.element.hidden = false; bar.update(context, batch); });
      said += `, ${fits ? "fits" : "does not fit"}, at most ${count(most, "request")}`;
    } else {
      const each = row.at(context, batch + 1n, true), parts = row.curve.parts(row.shared ? context * batch : context, batch);
      // One part alone is the total
      this.parts.element.hidden = Object.values(parts).filter((size) => size > 0n).length < 2;
      this.parts.update(parts);
      this.fact(...(each === null ? [] : [["One more request", `${group(each - row.bytes)} B`]]), ...(row.shared && batch > 1n ? [["n_ctx", `${group(context * batch)}, shared out`]] : []));
    }
    return said;
  }

  fact(...pairs) {
    this.facts.replaceChildren(...pairs.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)]));
  }
}

function split(fit) {
  const many = fit.gpus === 1 ? fit.gpu : `${fit.gpus} × ${fit.gpu}`;
  return many + (fit.tp > 1 ? `, tp ${fit.tp}` : "") + (fit.pp > 1 ? `, pp ${fit.pp}` : "");
}

// What the engine sets aside, part by part, each with its reason.
function aside(room) {
  if (!room.allowances.length) return null;
  const items = room.allowances.map((one) => el("li", {}, `${one.name}: ${group(one.bytes)} B (${showBytes(one.bytes)}). ${one.why}`));
  return el("details", {}, el("summary", {}, "what is set aside"), el("ul", { class: "notes" }, ...items));
}

// One GPU as a stacked bar with its numbers; what does not fit runs over its edge.
class Bar {
  constructor(room, row, place) {
    this.room = room;
    const each = row.fit.gpus / row.fit.pp;
    const name = `${row.fit.pp > 1 ? `Stage ${place + 1}: ` : ""}${each > 1 ? `each of ${each} GPUs` : "the GPU"}, ${showBytes(room.total)}`;
    this.pieces = Object.fromEntries([...PARTS.map(([key]) => key)].map((key) => [key, el("i", { class: key })]));
    this.over = el("span", { class: "over" });
    this.sizes = new Sizes(PARTS, name);
    this.stack = el("div", { class: "stack", role: "img" }, ...Object.values(this.pieces), this.over);
    this.element = el("div", { class: "stage" }, el("p", { class: "hint" }, name), this.stack, this.sizes.element, aside(room));
  }

  update(context, batch) {
    const { room, stack } = this, parts = room.parts(context, batch);
    const state = parts.kv + parts.state + parts.padding, reserve = room.reserve(context, batch), free = room.total - room.weights - reserve - state;
    const sizes = { weights: room.weights, ...parts, aside: reserve, free };
    const full = free < 0n ? room.total - free : room.total;
    for (const [key] of PARTS) this.pieces[key].style.width = sizes[key] < 0n ? "0" : `${(Number(sizes[key]) / Number(full)) * 100}%`;
    this.sizes.update(sizes);
    this.over.hidden = free >= 0n;
    this.over.style.left = `${(Number(room.total) / Number(full)) * 100}%`;
    stack.setAttribute("aria-label", PARTS.map(([key, word]) => `${key === "free" && free < 0n ? "lacking" : word} ${showBytes(sizes[key] < 0n ? -sizes[key] : sizes[key])}`).join(", "));
  }
}
