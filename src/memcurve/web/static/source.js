// Where answers come from: a memcurve server's API, or files that memcurve site wrote.

import { Curve } from "./curve.js";
import { Rooms } from "./fit.js";
import { RANKS } from "./commands.js";

// What only Python can answer; the page shows the command line instead.
export class NeedsPython extends Error {}

// Integers beyond 2^53 keep their digits where the browser tells them.
function exact(key, value, context) {
  return typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source || "") ? BigInt(context.source) : value;
}

async function read(answer) {
  const text = await answer.text();
  let data;
  try { data = JSON.parse(text, exact); } catch { data = null; }
  if (!answer.ok || data === null) throw new Error((data && (data.detail || data.title)) || `${answer.url}: ${answer.status} ${answer.statusText}`);
  return data;
}

// What memcurve site packed: "$3" stands for shared[3].
export function unpack({ shared, data }) {
  const known = [];
  const whole = (value) => {
    if (typeof value === "string") return value[0] !== "$" ? value : value[1] === "$" ? value.slice(1) : known[Number(value.slice(1))];
    if (Array.isArray(value)) return value.map(whole);
    return value && typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([key, one]) => [key, whole(one)])) : value;
  };
  for (const one of shared) known.push(whole(one));
  return whole(data);
}

function row(asked, data) {
  return { asked, engine: asked.engine, shared: false, rooms: null, fit: null, why: null, notes: [], ...data };
}

// A config.json goes as its text, which keeps every number, and Infinity and NaN, which Python writes and JSON has not.
function check(text, name) {
  let config;
  try { config = JSON.parse(text.replace(/"(?:[^"\\]|\\.)*"|-?\bInfinity\b|\bNaN\b/g, (word) => (word[0] === '"' ? word : "0"))); } catch {
    throw new Error(`${name}: not JSON; expected a config.json or a .gguf file`);
  }
  if (config === null || typeof config !== "object" || Array.isArray(config)) throw new Error(`${name}: not an object; expected a config.json`);
}

export class Api {
  constructor() {
    this.known = new Map();
    this.files = false;
  }

  async get(name) { return read(await fetch(`api/v1/${name}`)); }

  async post(name, body, type = "application/json") {
    const sent = { method: "POST", headers: { "Content-Type": type }, body: type === "application/json" ? JSON.stringify(body) : body };
    return read(await fetch(`api/v1/${name}`, sent));
  }

  // The same question twice is one request.
  once(name, body) {
    const key = `${name} ${JSON.stringify(body)}`;
    if (!this.known.has(key)) {
      const answer = this.post(name, body);
      answer.catch(() => this.known.delete(key));
      this.known.set(key, answer);
      if (this.known.size > 200) this.known.delete(this.known.keys().next().value);
    }
    return this.known.get(key);
  }

  async start() {
    const [models, gpus, engines] = await Promise.all(["models", "gpus", "engines"].map((name) => this.get(name)));
    return { models: models.models, gpus: gpus.gpus, engines: engines.engines, patterns: engines.patterns, counts: null };
  }

  // asked: subject, engine, dtype, gpu or memory, gpus, tp, context, batch.
  async ask(asked) {
    const subject = { ...asked.subject, engine: asked.engine, dtype: asked.dtype };
    const pattern = Boolean(asked.subject.model) && !asked.subject.model.includes("/"), wanted = asked.gpu || asked.memory, fits = wanted && !pattern;
    const device = asked.gpu ? { gpu: asked.gpu } : { gpu_memory: asked.memory };
    const [curve, fit] = await Promise.allSettled([
      this.once("curve", subject),
      fits ? this.once("fit", { ...subject, ...device, gpus: asked.gpus, ...(asked.tp ? { tp: asked.tp } : {}), context: asked.context, batch: asked.batch, rooms: true }) : null,
    ]);
    if (curve.status === "rejected") throw curve.reason;
    const found = curve.value;
    const answer = row(asked, { structure: found.structure, dtype: found.dtype, curve: new Curve(found.curve, found.filled), shared: found.shared_context, notes: found.notes });
    if (wanted && pattern) return this.alone(asked, subject, { ...answer, why: "a pattern has no weights; memcurve fit takes those of a checkpoint: --weights" });
    if (!fits) return answer;
    if (fit.status === "rejected") return this.alone(asked, subject, { ...answer, why: fit.reason.message });
    return { ...answer, rooms: new Rooms(fit.value), fit: fit.value, notes: fit.value.notes };
  }

  // Without a fit the state is still that of a rank, where the engine divides it so.
  async alone(asked, subject, answer) {
    const ranks = asked.tp || asked.gpus, name = RANKS[asked.engine];
    if (!name || ranks === 1) return answer;
    const found = await this.once("curve", { ...subject, options: { [name]: ranks } });
    return { ...answer, ranks, curve: new Curve(found.curve, found.filled), notes: found.notes };
  }

  // A file that was dropped: the subject that stands for it. Of a GGUF file only its first bytes, more where its header is longer.
  async open(file) {
    const magic = new Uint8Array(await file.slice(0, 4).arrayBuffer());
    if (String.fromCharCode(...magic) !== "GGUF") {
      if (file.size > 1 << 20) throw new Error(`${file.name}: ${file.size} bytes; expected a config.json of at most 1 MiB, or a .gguf file`);
      const text = await file.text();
      check(text, file.name);
      return { config: text };
    }
    for (let size = 1 << 20; ; size *= 4) {
      try {
        const found = await this.post("gguf", await file.slice(0, Math.min(size, 32 << 20)).arrayBuffer(), "application/octet-stream");
        return { gguf: found.gguf };
      } catch (error) {
        if (size >= Math.min(file.size, 32 << 20) || !/more bytes|ends/.test(error.message)) throw error;
      }
    }
  }
}

export class Files {
  constructor() {
    this.known = new Map();
    this.files = true;
  }

  async start() {
    this.site = await read(await fetch("data/site.json"));
    return { ...this.site, patterns: null };
  }

  async model(name) {
    if (!this.known.has(name)) {
      const answer = fetch(`data/${encodeURIComponent(name.replace("/", "__"))}.json`).then(read).then(unpack);
      answer.catch(() => this.known.delete(name));
      this.known.set(name, answer);
    }
    return this.known.get(name);
  }

  async ask(asked) {
    const name = asked.subject.model;
    if (!name || !this.site.models.some((one) => one.name === name)) throw new NeedsPython("Only models of the catalogue are on this page; for any other config run memcurve itself:");
    const data = await this.model(name);
    const own = data.engines[asked.engine];
    if (own.error) throw new Error(own.error);
    const curve = own.curve;
    if (own.missing && !asked.dtype) throw new Error(own.missing);
    const [dtype, planned] = asked.dtype ? own.alike[asked.dtype] || [] : [curve.dtype, true];
    if (!dtype) throw new NeedsPython(`This page holds this model in ${Object.keys(own.alike).join(" and ") || curve.dtype} under ${asked.engine}; for ${asked.dtype} run memcurve itself:`);
    const shared = this.site.engines.find((one) => one.name === asked.engine).shared_context;
    const answer = row(asked, { structure: data.structure, dtype, curve: new Curve(curve, own.filled), shared, notes: curve.notes });
    if (!asked.gpu && !asked.memory) return answer;
    try {
      if (!planned) throw new NeedsPython(`This page holds what fits without ${asked.dtype} named; with it run memcurve itself:`);
      return { ...answer, ...this.fit(data, own, asked) };
    } catch (error) {
      const python = error instanceof NeedsPython, ranks = asked.tp || asked.gpus;
      if (!own.ranks || ranks === 1) return { ...answer, why: error.message, python };
      const held = own.ranks[ranks];
      if (held === undefined) throw python ? error : new NeedsPython(`${error.message}. For the state on each of ${ranks} ranks run memcurve itself:`);
      if (typeof held === "string") throw new Error(held);
      return { ...answer, ranks, curve: new Curve(held.curve, held.filled), notes: held.curve.notes, why: error.message, python };
    }
  }

  fit(data, own, asked) {
    if (own.no_fit) throw new Error(own.no_fit);
    const place = this.site.gpus.findIndex((one) => one.name === asked.gpu);
    const found = own.fits[asked.gpus];
    if (place < 0 || !found || (asked.tp && found.tp !== asked.tp)) {
      throw new NeedsPython(`This page holds ${this.site.counts.join(", ")} GPUs of the listed kinds; for others run memcurve itself:`);
    }
    if (found.error) throw new Error(found.error);
    const cell = found.cells[place];
    if (typeof cell === "string") throw new Error(cell);
    const [form, reserve, ...amounts] = cell;
    const total = this.site.gpus[place].memory_bytes;
    const rooms = form.rooms.map((one, stage) => ({
      ...one, weights: found.weights[stage], reserve, total, room: total - found.weights[stage] - reserve,
      shares: Array.isArray(one.shares) ? one.shares.map(([name, each]) => [name, amounts.shift(), each]) : one.shares,
    }));
    const fit = { gpu: asked.gpu, gpus: asked.gpus, tp: found.tp, pp: found.pp, weights: `${data.name} (estimated from the config)` };
    return { rooms: new Rooms({ limit: form.limit, rooms }), fit, notes: rooms[0].curve.notes };
  }

  async open(file) { throw new NeedsPython(`${file.name}: this page is files alone and reads no config; run memcurve itself:`); }
}
