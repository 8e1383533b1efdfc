// What went wrong, where everybody sees and hears it, and what to do now.

import { at } from "./dom.js";
import { SpeechError } from "./speech.js";

export class Problem {
  #composer;
  #timer = 0;
  #again = null;

  constructor(composer) {
    this.#composer = composer;
    at("again").addEventListener("click", () => {
      if (at("again").getAttribute("aria-disabled") !== "true") this.#again();
    });
  }

  clear() {
    clearInterval(this.#timer);
    at("problem").hidden = true;
  }

  /** @param {Error} error @param {() => void} again what a second try is */
  show(error, again) {
    this.clear();
    const { title, detail, kind, param, wait } = error;
    const known = error instanceof SpeechError;
    at("problem-title").textContent = known ? title : "The page failed.";
    at("problem-detail").textContent = known ? detail : String(error);
    at("problem").hidden = false;
    at("again").hidden = param !== null && known;
    this.#again = again;
    this.#count(wait ?? 0);
    if (kind === "key") at("access").open = true;
    if (kind === "key") at("key").focus();
    else this.#composer.blame(param);
    if (!known) throw error; // for whoever looks at the console
  }

  // Seconds until it makes sense to try again.
  #count(wait) {
    const show = () => {
      at("again-wait").textContent = wait > 0 ? ` in ${wait} s` : "";
      at("again").setAttribute("aria-disabled", String(wait > 0));
      if (wait <= 0) clearInterval(this.#timer);
      wait -= 1;
    };
    this.#timer = setInterval(show, 1000);
    show();
  }
}
