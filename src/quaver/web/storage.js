// What the browser keeps for this page, in so far as it may.

/** @param {() => Storage} area such as `() => localStorage`; naming it is refused to some pages */
export class Kept {
  #area;
  #name;
  #value = null; // for as long as the page is open

  constructor(area, name) {
    this.#area = area;
    this.#name = name;
    this.#try((store) => (this.#value = store.getItem(name)));
  }

  /** @returns {string | null} */
  get value() {
    return this.#value;
  }

  set value(text) {
    this.#value = text;
    this.#try((store) => (text ? store.setItem(this.#name, text) : store.removeItem(this.#name)));
  }

  // Where storage is forbidden or full, things last as long as the page.
  #try(use) {
    try {
      use(this.#area());
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
    }
  }
}
