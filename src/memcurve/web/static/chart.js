// Bytes against context, in SVG of the size it is shown at. Every value is computed where it is drawn or read.

import { count, group, showBytes, showSize, showTokens } from "./format.js";

const NS = "http://www.w3.org/2000/svg";
const DASHES = ["", "9 4", "2 3", "9 3 2 3", "5 2 2 2 2 2", "14 4", "4 4"];
export const COLOURS = 7;

function node(name, attributes, text) {
  const made = document.createElementNS(NS, name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  return made;
}

export function dash(index) {
  return DASHES[(index + Math.floor(index / COLOURS)) % DASHES.length];
}

// A line as it looks in the figure.
export function swatch(index) {
  const made = node("svg", { class: `swatch c${index % COLOURS}`, viewBox: "0 0 28 8", width: 28, height: 8, "aria-hidden": "true" });
  made.append(node("line", { x1: 0, x2: 28, y1: 4, y2: 4, "stroke-dasharray": dash(index) }));
  return made;
}

// series: {name, index, at(context) → BigInt or null, kinks, shown}. marks: {x, y, names}. lines: {y, name}.
// on.cursor(context or null, whether by keys) while reading, on.pick(context) where a place is chosen, on.view() after a zoom.
export class Chart {
  constructor(svg, on = {}) {
    this.svg = svg;
    this.on = on;
    Object.assign(this, { series: [], marks: [], lines: [], low: 1, high: 131072, view: null, logx: false, logy: false, here: null, cursor: null });
    this.width = 0;
    this.tapped = -Infinity;
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "slider");
    new ResizeObserver(() => { if (Math.abs(svg.clientWidth - this.width) > 1) this.draw(); }).observe(svg);
    svg.addEventListener("pointerdown", (event) => this.down(event));
    svg.addEventListener("pointermove", (event) => this.move(event));
    svg.addEventListener("pointerup", (event) => this.up(event));
    svg.addEventListener("pointercancel", () => { this.drag = null; this.overlay(); });
    svg.addEventListener("pointerleave", () => { if (!this.drag) this.read(null); });
    svg.addEventListener("wheel", (event) => {
      if (event.deltaY > 0 && !this.view) return; // all is shown: the page scrolls on
      event.preventDefault();
      this.scale(event.deltaY > 0 ? 1.25 : 0.8, this.place(event));
    }, { passive: false });
    svg.addEventListener("keydown", (event) => this.key(event));
    svg.addEventListener("blur", () => this.read(null));
    if (window.matchMedia) window.matchMedia("print").addEventListener("change", () => this.draw());
  }

  set(values) {
    const moved = (values.low !== undefined && values.low !== this.low) || (values.high !== undefined && values.high !== this.high);
    Object.assign(this, values);
    if (moved) this.view = null;
    this.draw();
  }

  get from() { return this.view ? this.view[0] : this.logx ? Math.max(1, this.low) : this.low; }
  get to() { return this.view ? this.view[1] : this.high; }

  // -- places -----------------------------------------------------------------------------------------------------

  x(context) {
    const { left, right } = this.box, [from, to] = [this.from, this.to];
    const share = this.logx ? Math.log(Math.max(context, 0.5) / from) / Math.log(to / from) : (context - from) / (to - from);
    return left + (right - left) * (Number.isFinite(share) ? share : 0);
  }

  y(bytes) {
    const { top, bottom } = this.box, [least, most] = this.range;
    const share = this.logy ? Math.log(Math.max(bytes, least) / least) / Math.log(most / least) : bytes / most;
    return bottom - (bottom - top) * share;
  }

  // The context at a share of the view, 0 to 1 (or beyond).
  at(share) {
    const [from, to] = [this.from, this.to];
    return this.logx ? from * (to / from) ** share : from + (to - from) * share;
  }

  place(event) {
    const bounds = this.svg.getBoundingClientRect();
    return (event.clientX - bounds.left - this.box.left) / (this.box.right - this.box.left);
  }

  clamp(context) {
    return Math.min(this.high, Math.max(this.low, Math.round(context)));
  }

  // -- reading and zooming ------------------------------------------------------------------------------------------

  read(context, keys = false) {
    this.cursor = context;
    this.overlay();
    if (this.on.cursor) this.on.cursor(context, keys);
  }

  zoom(view) {
    if (view) {
      let [from, to] = view.map((context) => this.clamp(context));
      if (this.logx) from = Math.max(1, from);
      if (to - from < 4) to = Math.min(this.high, from + 4);
      this.view = from <= Math.max(this.low, this.logx ? 1 : 0) && to >= this.high ? null : [from, Math.max(to, from + 1)];
    } else this.view = null;
    this.draw();
    if (this.on.view) this.on.view();
  }

  scale(factor, share) {
    this.zoom([this.at(share - share * factor), this.at(share + (1 - share) * factor)]);
  }

  down(event) {
    if (event.button || event.pointerType === "touch") return;
    this.drag = { from: this.place(event), to: this.place(event) };
    this.svg.setPointerCapture(event.pointerId);
  }

  move(event) {
    const share = Math.min(1, Math.max(0, this.place(event)));
    if (this.drag) this.drag.to = share;
    this.read(this.clamp(this.at(share)));
  }

  up(event) {
    const drag = this.drag || { from: this.place(event), to: this.place(event) };
    this.drag = null;
    const [a, b] = [drag.from, drag.to].sort((one, other) => one - other);
    if (b - a > 0.02) {
      this.zoom([this.at(Math.max(0, a)), this.at(b)]);
      return;
    }
    if (event.timeStamp - this.tapped < 400) { // a double click: its first one is taken back
      this.tapped = -Infinity;
      if (this.on.pick && this.before !== null) this.on.pick(this.before);
      this.zoom(null);
    } else if (a >= 0 && a <= 1) {
      this.tapped = event.timeStamp;
      this.before = this.here;
      if (this.on.pick) this.on.pick(this.clamp(this.at(a)));
    }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const start = this.cursor ?? this.here ?? this.from;
    const step = (share) => {
      const moved = this.clamp(this.at((this.x(start) - this.box.left) / (this.box.right - this.box.left) + share));
      return moved === start ? this.clamp(start + Math.sign(share)) : moved;
    };
    const to = {
      ArrowRight: () => (event.shiftKey ? this.clamp(start + 1) : step(0.02)), ArrowUp: () => step(0.02),
      ArrowLeft: () => (event.shiftKey ? this.clamp(start - 1) : step(-0.02)), ArrowDown: () => step(-0.02),
      PageUp: () => step(0.1), PageDown: () => step(-0.1), Home: () => this.clamp(this.from), End: () => this.clamp(this.to),
    }[event.key];
    if (to) {
      const context = to();
      if (context < this.from || context > this.to) {
        const shift = context < this.from ? -0.25 : 0.25;
        this.zoom([this.at(shift), this.at(1 + shift)]);
      }
      this.read(context, true);
    } else if (event.key === "+" || event.key === "=") this.scale(0.7, Math.min(1, Math.max(0, (this.x(start) - this.box.left) / (this.box.right - this.box.left))));
    else if (event.key === "-") this.scale(1.4, 0.5);
    else if (event.key === "0" || event.key === "Escape") this.zoom(null);
    else if (event.key === "Enter" && this.on.pick && this.cursor !== null) this.on.pick(this.cursor);
    else return;
    event.preventDefault();
  }

  // -- drawing ------------------------------------------------------------------------------------------------------

  // Points of a curve: every token, or one for each pixel, and what the library says of kinks.
  sample(series) {
    const from = this.from, to = this.to, most = Math.max(64, this.box.right - this.box.left);
    let xs = [];
    if (to - from <= most) for (let x = from; x <= to; x += 1) xs.push(x);
    else {
      for (let k = 0; k <= most; k += 1) xs.push(Math.round(this.at(k / most)));
      xs = [...new Set([...xs, ...(series.kinks || []).filter((x) => x > from && x < to)])].sort((a, b) => a - b);
    }
    const points = [];
    for (const x of xs) {
      const y = series.at(x);
      if (y !== null) points.push([x, Number(y)]);
    }
    return points;
  }

  // The same with steps upright, each at its own token, where they are high enough to be seen.
  upright(series, points) {
    const slope = (i) => (i > 0 && i < points.length ? (points[i][1] - points[i - 1][1]) / (points[i][0] - points[i - 1][0]) : null);
    const found = points.slice(0, 1);
    for (let i = 1; i < points.length; i += 1) {
      const rise = slope(i);
      if (rise !== slope(i - 1) && rise !== slope(i + 1)) found.push(...this.steps(series, points[i - 1], points[i]));
      found.push(points[i]);
    }
    return found;
  }

  // What lies between two points: the step that takes half of the way at least, and those before and after it.
  steps(series, low, high) {
    const [from, to] = [low[0], high[0]], way = high[1] - low[1];
    if (to - from < 1 || Math.abs(this.y(high[1]) - this.y(low[1])) < 1) return [];
    const value = (x) => (x === from ? low[1] : x === to ? high[1] : Number(series.at(x)));
    let [a, b] = [from, to];
    while (b - a > 1) {
      const middle = Math.floor((a + b) / 2);
      if ((value(middle) - low[1]) * Math.sign(way) * 2 < Math.abs(way)) a = middle; else b = middle;
    }
    const [before, after] = [[a, value(a)], [b, value(b)]];
    if (Math.abs(after[1] - before[1]) * 2 < Math.abs(way)) return [];
    const own = a > this.low ? series.at(a - 1) : null, slope = own === null ? 0 : before[1] - Number(own);
    const foot = slope === after[1] - before[1] ? [] : [[b, before[1] + slope]];
    return [...this.steps(series, low, before), ...(a > from ? [before] : []), ...foot, ...(b < to ? [after] : []), ...this.steps(series, after, high)];
  }

  ticks(from, to, log, room) {
    const most = Math.max(2, Math.floor(room));
    let found = [];
    if (log && to / from >= 4) {
      for (let t = 2 ** Math.ceil(Math.log2(from) - 1e-9); t <= to; t *= 2) found.push(t);
      const every = Math.ceil(found.length / most);
      return found.filter((t) => Math.round(Math.log2(t)) % every === 0);
    }
    let step = 2 ** Math.ceil(Math.log2((to - from) / most));
    if (to - from >= 4) step = Math.max(1, step);
    for (let t = Math.ceil(from / step) * step; t <= to; t += step) found.push(t);
    return found;
  }

  draw() {
    const svg = this.svg;
    const width = svg.clientWidth || 720;
    const height = Math.round(Math.min(460, Math.max(260, width * 0.52)));
    this.width = width;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    this.box = { left: 72, right: width - 14, top: 16, bottom: height - 44 };
    const { left, right, top, bottom } = this.box;
    const shown = this.series.filter((one) => one.shown !== false);
    const drawn = shown.map((one) => [one, this.sample(one)]);
    const values = drawn.flatMap(([, points]) => points.map(([, y]) => y)).filter((y) => y > 0);
    const highest = values.reduce((a, b) => Math.max(a, b), 1), lowest = values.reduce((a, b) => Math.min(a, b), highest);
    // A memory far above the curves would flatten them: it is in the figure only within reach.
    const near = this.lines.filter((line) => line.y <= highest * (this.logy ? 64 : 3) && line.y > 0);
    const most = [highest, ...near.map((line) => line.y)].reduce((a, b) => Math.max(a, b), 1) * (this.logy ? 1.3 : 1.06);
    this.range = [this.logy ? Math.min(lowest, ...near.map((line) => line.y), most / 4) * 0.9 : 0, most];
    const parts = [node("rect", { class: "ground", x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) })];
    for (const t of this.ticks(Math.max(this.from, this.logx ? 1 : 0), this.to, this.logx, (right - left) / 64)) {
      const x = this.x(t);
      parts.push(node("line", { class: "grid", x1: x, x2: x, y1: top, y2: bottom }), node("text", { x, y: bottom + 17, "text-anchor": "middle" }, showTokens(t)));
    }
    for (const t of this.ticks(this.range[0], most, this.logy, (bottom - top) / 34)) {
      const y = this.y(t);
      parts.push(node("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }), node("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, showSize(t)));
    }
    parts.push(node("text", { class: "axis", x: (left + right) / 2, y: height - 8, "text-anchor": "middle" }, "Context (tokens; k = 1024)"));
    parts.push(...this.memories(near, most));
    const clip = node("svg", { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top), viewBox: `${left} ${top} ${Math.max(1, right - left)} ${Math.max(1, bottom - top)}` });
    for (const [one, points] of drawn) {
      const text = this.upright(one, points).map(([x, y]) => `${this.x(x).toFixed(1)},${this.y(y).toFixed(1)}`).join(" ");
      clip.append(node("polyline", { class: `curve c${one.index % COLOURS}`, points: text, "stroke-dasharray": dash(one.index) }));
    }
    const names = new Set(shown.map((one) => one.name));
    const marks = this.marks.filter((mark) => mark.x >= this.from && mark.x <= this.to && mark.names.every((name) => names.has(name)));
    for (const mark of marks) {
      const ring = node("circle", { class: "ring", cx: this.x(mark.x), cy: this.y(mark.y), r: 4.5 });
      ring.append(node("title", {}, `from ${count(mark.x, "token")} on ${mark.names[0]} below ${mark.names[1]}`));
      clip.append(ring);
    }
    if (marks.length <= 12) clip.append(...this.labels(marks));
    parts.push(clip, (this.top = node("g", { class: "overlay" })));
    svg.replaceChildren(...parts);
    this.overlay();
  }

  // Contexts beside their crossings, each where no other label and no other crossing is nearer; else it is left to the list.
  labels(marks) {
    const { left, right, top, bottom } = this.box, taken = [], parts = [];
    const rings = marks.map((mark) => [this.x(mark.x), this.y(mark.y)]);
    rings.forEach(([x, y], own) => {
      if (rings.slice(0, own).some(([p, q]) => Math.hypot(p - x, q - y) < 6)) return; // one of these is enough
      const text = group(marks[own].x), width = text.length * 7;
      for (const [dx, dy, anchor] of [[8, 16, "start"], [-8, -8, "end"], [-8, 16, "end"], [8, -8, "start"], [0, -12, "middle"], [0, 22, "middle"]]) {
        const from = x + dx - { start: 0, middle: width / 2, end: width }[anchor];
        const box = [from, y + dy - 10, from + width, y + dy + 2], hits = (other, room) => other[0] - room < box[2] && other[2] + room > box[0] && other[1] - room < box[3] && other[3] + room > box[1];
        if (box[0] < left || box[2] > right || box[1] < top || box[3] > bottom || taken.some((other) => hits(other, 3))) continue;
        if (rings.some(([p, q]) => Math.hypot(p - x, q - y) >= 6 && hits([p, q, p, q], 12))) continue;
        taken.push(box);
        parts.push(node("text", { class: "halo", x: x + dx, y: y + dy, "text-anchor": anchor }, text));
        break;
      }
    });
    return parts;
  }

  // Lines at amounts of memory, each label beside its line where no other line or label is; those beyond the figure are only told.
  memories(near, most) {
    const { left, right, top, bottom } = this.box, parts = [], taken = [], ys = near.map((line) => this.y(line.y));
    let told = top + 14;
    for (const line of [...this.lines].sort((a, b) => b.y - a.y)) {
      const kind = line.index === undefined ? "memory" : `memory c${line.index % COLOURS}`, size = showBytes(line.y);
      const text = `${(line.name.length + size.length) * 7 > (right - left) * 0.8 ? line.name.split(" ")[0] : line.name}: ${size}`, width = text.length * 7;
      if (!near.includes(line)) {
        const where = line.y > 0 ? `${text}, ${line.y > most ? "above" : "below"} the figure` : `no ${line.name}`;
        parts.push(node("text", { class: kind, x: left + 6, y: told }, where));
        told += 16;
        continue;
      }
      const y = this.y(line.y), free = ([x, base]) => {
        const box = [x, base - 11, x + width, base + 3];
        return box[0] >= left && box[2] <= right && box[1] >= 1 && box[3] <= bottom && !ys.some((one) => one > box[1] && one < box[3]) && !taken.some((other) => other[0] < box[2] && other[2] > box[0] && other[1] < box[3] && other[3] > box[1]);
      };
      const beside = [left + 6, left + (right - left) / 3, left + (right - left) * 2 / 3].flatMap((x) => [[x, y - 5], [x, y + 14]]);
      const [x, base] = beside.find(free) || beside[0];
      taken.push([x, base - 11, x + width, base + 3]);
      parts.push(node("line", { class: kind, x1: left, x2: right, y1: y, y2: y }), node("text", { class: kind, x, y: base }, text));
    }
    return parts;
  }

  // What moves with the pointer: the chosen context, the place that is read, and a range that is being dragged.
  overlay() {
    if (!this.top) return;
    const { left, right, top, bottom } = this.box, parts = [];
    const inside = (context) => context !== null && context >= this.from && context <= this.to;
    if (this.drag && Math.abs(this.drag.to - this.drag.from) > 0.005) {
      const [a, b] = [this.drag.from, this.drag.to].map((share) => left + (right - left) * Math.min(1, Math.max(0, share))).sort((p, q) => p - q);
      parts.push(node("rect", { class: "range", x: a, y: top, width: b - a, height: bottom - top }));
    }
    if (inside(this.here)) {
      const x = this.x(this.here);
      parts.push(node("line", { class: "here", x1: x, x2: x, y1: top, y2: bottom }), node("text", { class: "here halo", x: x > right - 70 ? x - 5 : x + 5, y: bottom - 7, "text-anchor": x > right - 70 ? "end" : "start" }, showTokens(this.here)));
    }
    const at = inside(this.cursor) ? this.cursor : inside(this.here) ? this.here : null;
    if (inside(this.cursor)) parts.push(node("line", { class: "cursor", x1: this.x(this.cursor), x2: this.x(this.cursor), y1: top, y2: bottom }));
    const said = [];
    for (const one of this.series) {
      if (at === null || one.shown === false) continue;
      const value = one.at(at);
      if (value === null) continue;
      const y = this.y(Number(value));
      if (y >= top - 1 && y <= bottom + 1) parts.push(node("circle", { class: `dot c${one.index % COLOURS}`, cx: this.x(at), cy: y, r: 4 }));
      said.push(`${one.name} ${showBytes(value)}`);
    }
    this.top.replaceChildren(...parts);
    this.svg.setAttribute("aria-valuemin", this.low);
    this.svg.setAttribute("aria-valuemax", this.high);
    this.svg.setAttribute("aria-valuenow", at ?? this.from);
    this.svg.setAttribute("aria-valuetext", `${count(at ?? this.from, "token")}: ${said.join("; ") || "nothing"}`);
  }
}
