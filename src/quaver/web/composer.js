// The form: what is to be said, and how.

import { at, make } from "./dom.js";

const SEEDS = 1_000_000; // that dice know; a field takes larger ones

/** @typedef {import("./speech.js").Wish} Wish @typedef {import("./speech.js").Model} Model */

export class Composer {
  /** @type {Model | null} */
  model = null;
  #text = at("text");

  constructor() {
    at("speed").addEventListener("input", () => this.#showSpeed());
    at("dice").addEventListener("click", () => (at("seed").value = dice()));
    this.#text.addEventListener("input", () => this.#count());
    at("composer").addEventListener("input", ({ target }) => target.removeAttribute("aria-invalid"));
    this.#showSpeed();
    this.#count();
  }

  /** There is a model to speak, and nothing that the browser itself would refuse; it says what. */
  get valid() {
    return this.model !== null && at("composer").reportValidity();
  }

  /** What the form says now; without a seed of its own, a new one. @returns {Wish} */
  get wish() {
    const seed = at("seed").value === "" ? dice() : Number(at("seed").value);
    const { value: voice } = at("voice");
    const { value: recipe } = at("recipe");
    return { model: this.model.id, input: this.#text.value, voice, recipe, seed, speed: this.#speed };
  }

  /** Write a wish back into the form. @param {Wish} wish */
  fill({ input, voice, recipe, seed, speed }) {
    const values = { text: input, voice, recipe, seed, speed: Math.log2(speed) };
    for (const [id, value] of Object.entries(values)) at(id).value = value;
    this.#showSpeed();
    this.#count();
  }

  /** @param {Model} model @param {{id: string, name: string}[]} voices */
  offer(model, voices) {
    this.model = model;
    choices(at("voice"), voices.map(({ id, name }) => [id, name]));
    choices(at("recipe"), model.recipes.map((name) => [name, name]));
    at("tags").replaceChildren(...model.tags.map((tag) => this.#chip(`<${tag}>`)));
    at("tags").hidden = !model.tags.length;
  }

  /** Point at the field that was refused. @param {string | null} param as the server names it */
  blame(param) {
    const field = at(param === "input" ? "text" : param);
    if (!field?.matches("#composer :is(input, select, textarea)")) return;
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }

  #chip(tag) {
    const chip = make("button", { type: "button", className: "chip", textContent: tag });
    chip.addEventListener("click", () => this.#insert(tag));
    return chip;
  }

  // At the cursor, apart from the words around it.
  #insert(tag) {
    const { value, selectionStart, selectionEnd } = this.#text;
    const before = /\S$/.test(value.slice(0, selectionStart)) ? " " : "";
    const after = /^\s/.test(value.slice(selectionEnd)) ? "" : " ";
    this.#text.setRangeText(before + tag + after, selectionStart, selectionEnd, "end");
    this.#text.focus();
    this.#count();
  }

  get #speed() {
    return Number((2 ** Number(at("speed").value)).toFixed(2));
  }

  #showSpeed() {
    at("speed-told").textContent = `${this.#speed.toFixed(2)}×`;
    at("speed").setAttribute("aria-valuetext", `${this.#speed} times`);
  }

  #count() {
    const { length } = [...this.#text.value];
    at("count").textContent = `${length} character${length === 1 ? "" : "s"}`;
  }
}

function dice() {
  return crypto.getRandomValues(new Uint32Array(1))[0] % SEEDS;
}

/**
 * Give a picker new choices; the one that was chosen stays if it is still there.
 * @param {HTMLSelectElement} select @param {string[][]} pairs value and name
 */
export function choices(select, pairs) {
  const { value } = select;
  select.replaceChildren(...pairs.map(([id, name]) => make("option", { value: id, textContent: name })));
  if (pairs.some(([id]) => id === value)) select.value = value;
}
