// The command line and the lines of Python that give what the page shows.

export const RANKS = { vllm: "tensor_parallel_size", sglang: "tp_size" };

export function quote(word) {
  return /^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function python(value) {
  return typeof value === "number" ? `${value}` : JSON.stringify(value);
}

// Options of the engine for a row's own curve: how many ranks share a layer.
export function options(row) {
  const name = RANKS[row.engine];
  const ranks = row.fit ? row.fit.tp : row.ranks || 1;
  return name && ranks > 1 ? { [name]: ranks } : {};
}

// A file of this folder, whatever its name begins with.
export const pathOf = (name) => `./${name}`;

// What stands for a subject in a command: its name, its pattern, or the file.
function source(asked) {
  return asked.file ? pathOf(asked.file) : asked.subject.model;
}

// asked: subject, engine, dtype, gpu or memory, gpus, tp.
function fitWords(asked, fit) {
  const found = { gpu: asked.gpu, "gpu-memory": asked.gpu ? null : asked.memory, gpus: asked.gpus > 1 ? asked.gpus : null };
  return { ...found, tp: fit ? (fit.tp > 1 ? fit.tp : null) : asked.tp, pp: fit && fit.pp > 1 ? fit.pp : null };
}

// A checkpoint on the hub tells what the config does not.
function lacksWeights(row) {
  return Boolean(row && row.why && /--weights/.test(row.why) && row.asked.subject.model && row.asked.subject.model.includes("/"));
}

function tellsFit(asked, row) {
  return (asked.gpu || asked.memory) && (!row || !row.why || row.python || lacksWeights(row));
}

export function commandLines(asked, row, context, batch) {
  const name = quote(source(asked)), dtype = asked.dtype ? ` --dtype ${asked.dtype}` : "";
  const many = batch > 1 ? ` --batch ${batch}` : "";
  const found = [];
  const own = Object.entries(row ? options(row) : {}).map(([key, value]) => ` -O ${key}=${value}`).join("");
  const shared = row && row.shared ? context * batch : context;
  if (!row || !row.fit || row.fit.pp === 1) found.push(`memcurve estimate ${name} --engine ${asked.engine}${dtype} --context ${shared}${many}${own}`);
  if (tellsFit(asked, row)) {
    const words = Object.entries(fitWords(asked, row && row.fit)).filter(([, value]) => value).map(([key, value]) => ` --${key} ${quote(String(value))}`);
    found.push(`memcurve fit ${name} --engine ${asked.engine}${dtype}${words.join("")} --context ${context}${many}${lacksWeights(row) ? ` --weights ${name}` : ""}`);
  }
  return found;
}

// Where all contexts are of the whole cache, plot's axis is that one's; beside other engines it is each request's, as here.
export function plotLine(rows, batch) {
  const note = batch > 1 && rows.every((row) => row.shared) ? `  # contexts are n_ctx, ${batch} times those of each request` : "";
  return `memcurve plot ${subjects(rows, batch)} --max_ctx 1M --log xy -o curves.html${note}`;
}

export function crossLine(rows, batch) {
  return `memcurve cross ${subjects(rows, batch)} --max_ctx 1M`;
}

function subjects(rows, batch) {
  const words = rows.map((row) => {
    const own = Object.entries({ engine: row.engine, ...options(row) }).map(([key, value]) => `${key}=${value}`);
    return quote(`${source(row.asked)}@${own.join(",")}`);
  });
  const dtype = rows[0].asked.dtype ? ` --dtype ${rows[0].asked.dtype}` : "";
  return `${words.join(" ")}${dtype}${batch > 1 ? ` --batch ${batch}` : ""}`;
}

export function pythonLines(asked, row, context, batch) {
  const load = asked.subject.model && !asked.subject.model.includes("/") ? "pattern" : "load";
  const dtype = asked.dtype ? [["dtype", asked.dtype]] : [];
  const words = (pairs) => pairs.map(([key, value]) => `${key}=${python(value)}`).join(", ");
  const found = [`model = memcurve.${load}(${python(source(asked))}${load === "pattern" ? ', dtype="bf16"' : ""})`];
  const own = Object.entries(row ? options(row) : {});
  if (!row || !row.fit || row.fit.pp === 1) {
    found.push(`curve = model.curve(${words([["engine", asked.engine], ...dtype, ...own])})`);
    const shared = row && row.shared ? context * batch : context;
    const value = row && row.bytes !== undefined && row.bytes !== null ? `  # ${row.bytes}` : "";
    found.push(`curve.bytes(context=${shared}, batch=${batch})${value}`);
  }
  if (tellsFit(asked, row)) {
    const given = Object.entries(fitWords(asked, row && row.fit)).filter(([, value]) => value).map(([key, value]) => [key.replace("-", "_"), value]);
    found.push(`memcurve.fit(model, ${words([...given, ["engine", asked.engine], ...dtype, ["context", context], ["batch", batch], ...(lacksWeights(row) ? [["weights", asked.subject.model]] : [])])})`);
  }
  return found.join("\n");
}
