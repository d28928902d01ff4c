// The searchable list of models: a combobox with a listbox, by mouse and by keys.

import { el } from "./dom.js";
import { count } from "./format.js";

const MOST = 40;

export class Picker {
  constructor(input, list, add, say) {
    Object.assign(this, { input, list, add, say, models: [], kinds: null, rows: [], active: -1 });
    input.addEventListener("input", () => { this.show(); say(`${count(this.rows.length, "model")} found`); });
    input.addEventListener("focus", () => this.show());
    input.addEventListener("blur", () => this.hide());
    input.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("pointerdown", (event) => event.preventDefault());
    list.addEventListener("click", (event) => {
      const place = [...list.children].indexOf(event.target.closest("li"));
      if (place >= 0) this.choose(place);
    });
  }

  // Parts such as 3gdn or mha with ":" between them; kinds null: which there are is not known here.
  isPattern(text) {
    const parts = text.toLowerCase().split(":").map((part) => /^\s*\d{0,5}\s*([a-z][a-z0-9_]*)\s*$/.exec(part));
    if (!parts.every(Boolean)) return false;
    return this.kinds ? parts.some((part) => this.kinds.includes(part[1])) : parts.length > 1;
  }

  search(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    // By their names before by their structure, published configs before other projects' presets, an owner's own before others'
    const word = words[0] || "", owns = (owner) => word && (owner.startsWith(word) || word.startsWith(owner));
    const place = ({ name, source }) => (name.toLowerCase().includes(word) ? 0 : 4) + (source === "preset" ? 2 : 0) + (owns(name.toLowerCase().split("/")[0]) ? 0 : 1);
    const found = this.models.filter((one) => words.every((word) => one.words.includes(word))).sort((a, b) => place(a) - place(b));
    return [...(this.isPattern(text) ? [{ name: text.replace(/\s/g, ""), structure: "a pattern of layers" }] : []), ...found];
  }

  set(models, kinds) {
    this.kinds = kinds;
    this.models = models.map((one) => ({ ...one, words: `${one.name} ${one.structure} ${one.type || ""}`.toLowerCase() }));
  }

  show() {
    this.rows = this.search(this.input.value);
    const shown = this.rows.slice(0, MOST);
    this.active = shown.length && this.input.value.trim() ? 0 : -1;
    this.list.replaceChildren(...shown.map((one, place) => el("li", { role: "option", id: `found-${place}` }, one.name, el("small", {}, one.structure))));
    if (!shown.length) this.list.append(el("li", { role: "option", "aria-disabled": "true" }, "nothing found: a config.json can be dropped below"));
    this.mark();
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
  }

  hide() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  mark() {
    [...this.list.children].forEach((item, place) => item.setAttribute("aria-selected", String(place === this.active)));
    const item = this.list.children[this.active];
    if (item) {
      this.input.setAttribute("aria-activedescendant", item.id);
      item.scrollIntoView({ block: "nearest" });
    } else this.input.removeAttribute("aria-activedescendant");
  }

  key(event) {
    const count = Math.min(this.rows.length, MOST);
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      if (this.list.hidden) this.show();
      else if (count) this.active = (this.active + (event.key === "ArrowDown" ? 1 : count - 1) + (this.active < 0 && event.key === "ArrowUp" ? 1 : 0)) % count;
      this.mark();
    } else if (event.key === "Enter") {
      if (!this.list.hidden && this.active >= 0) this.choose(this.active);
    } else if (event.key === "Escape") {
      if (this.list.hidden) this.input.value = "";
      this.hide();
    } else return;
    event.preventDefault();
  }

  choose(place) {
    const one = this.rows[place];
    if (!one) return;
    this.input.value = "";
    this.hide();
    this.add(one.name);
  }
}
