// Numbers for people: exact with thousands separators, as the nearest unit of 1024, and read back.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const FACTORS = { "": 1, b: 1, kb: 1e3, mb: 1e6, gb: 1e9, tb: 1e12, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30, tib: 2 ** 40 };

// 1,234,567 of a whole number, BigInt or not.
export function group(number) {
  return String(number).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

// A number and its unit: 1 token, 8,192 tokens.
export function count(number, unit) {
  return `${group(number)} ${unit}${String(number) === "1" ? "" : "s"}`;
}

// Bytes as show_bytes of the library has them: 512 B, 3.07 GiB.
export function showBytes(bytes) {
  let size = Number(bytes), unit = 0;
  const sign = size < 0 ? "−" : "";
  size = Math.abs(size);
  while (size >= 1024 && unit < 5) { size /= 1024; unit += 1; }
  return unit ? `${sign}${size.toFixed(2)} ${UNITS[unit]}` : `${sign}${size} B`;
}

// A round size on an axis: 4 GiB.
export function showSize(bytes) {
  let size = Number(bytes), unit = 0;
  while (size >= 1024 && unit < 5) { size /= 1024; unit += 1; }
  return `${+size.toPrecision(3)} ${UNITS[unit]}`;
}

// A context: 128k, 1M, others in full.
export function showTokens(count) {
  if (count >= 1048576 && count % 1048576 === 0) return `${count / 1048576}M`;
  if (count >= 1024 && count % 1024 === 0) return `${count / 1024}k`;
  return group(Math.round(count));
}

// 4096, 4,096, 128k or 1M as a number; null for anything else.
export function parseCount(text) {
  const found = /^(\d{1,15})([km]?)$/i.exec(text.replace(/[\s,_]/g, ""));
  if (!found) return null;
  const value = Number(found[1]) * ({ k: 1024, m: 1048576 }[found[2].toLowerCase()] || 1);
  return Number.isSafeInteger(value) ? value : null;
}

// 60GiB, 79.6 GiB, 80GB (10⁹) or plain bytes as whole bytes; null for anything else.
export function parseBytes(text) {
  const found = /^(\d{1,15})(?:\.(\d{1,6}))?([kmgt]?i?b?)$/i.exec(text.replace(/[\s,_]/g, ""));
  const factor = found && FACTORS[found[3].toLowerCase()];
  if (!factor) return null;
  const places = (found[2] || "").length;
  const value = BigInt(found[1] + (found[2] || "")) * BigInt(factor) / 10n ** BigInt(places);
  return value <= 2n ** 50n ? Number(value) : null;
}
