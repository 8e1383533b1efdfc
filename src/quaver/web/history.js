// The last takes, to hear again, keep, or start anew from. They live as long as the page is open.

import { at, make } from "./dom.js";

const MOST = 20; // takes
const MOST_SAMPLES = 2 ** 25; // 64 MiB: a phone's memory is small

/** @typedef {import("./take.js").Take} Take */

export class History {
  /** @type {{take: Take, row: HTMLElement}[]} */
  #rows = [];
  #stage;
  #composer;

  constructor(stage, composer) {
    this.#stage = stage;
    this.#composer = composer;
    stage.addEventListener("state", () => this.#mark());
  }

  /** @param {Take} take */
  add(take) {
    const row = make("li", {}, this.#about(take), this.#keys(take));
    this.#rows.unshift({ take, row });
    at("takes").prepend(row);
    while (this.#tooMuch()) this.#rows.pop().row.remove();
    at("no-takes").hidden = true;
    this.#mark();
  }

  #tooMuch() {
    const samples = this.#rows.reduce((sum, { take }) => sum + take.length, 0);
    return this.#rows.length > MOST || (samples > MOST_SAMPLES && this.#rows.length > 1);
  }

  #about(take) {
    const { input, voice, recipe, seed, speed } = take.wish;
    const facts = [
      voice,
      recipe,
      `seed ${seed}`,
      speed === 1 ? null : `${speed}×`,
      `${take.seconds.toFixed(1)} s`,
      take.ttfa === null ? null : `TTFA ${Math.round(take.ttfa)} ms`,
      `RTF ${take.rtf.toFixed(2)}`,
      take.whole ? null : "cut short",
    ];
    const given = facts.filter((fact) => fact !== null);
    const told = given.map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · "); // lines break between
    const text = make("p", { className: "said", textContent: input });
    return make("div", {}, text, make("p", { className: "facts", textContent: told }));
  }

  #keys(take) {
    const play = make("button", { type: "button", className: "play" });
    play.addEventListener("click", () => {
      if (this.#plays(take)) this.#stage.stop();
      else this.#stage.replay(take);
    });
    const keep = make("button", { type: "button", textContent: "Download" });
    keep.addEventListener("click", () => download(take));
    const again = make("button", { type: "button", textContent: "Reuse" });
    again.addEventListener("click", () => {
      this.#composer.fill(take.wish);
      at("text").focus();
    });
    for (const [key, what] of [[keep, "Download"], [again, "Reuse"]]) {
      key.setAttribute("aria-label", `${what}: ${short(take)}`);
    }
    return make("div", { className: "keys" }, play, keep, again);
  }

  #plays(take) {
    return this.#stage.playing === take;
  }

  #mark() {
    for (const { take, row } of this.#rows) {
      const play = row.querySelector(".play");
      const plays = this.#plays(take);
      play.textContent = plays ? "Stop" : "Play";
      play.setAttribute("aria-label", `${play.textContent}: ${short(take)}`);
      row.classList.toggle("sounding", plays);
    }
  }
}

function short(take) {
  const { input } = take.wish;
  return input.length > 60 ? `${input.slice(0, 60)}…` : input;
}

function download(take) {
  const href = URL.createObjectURL(take.wav());
  const words = take.wish.input.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["speech"];
  const name = [...words.slice(0, 5), take.wish.seed].join("-");
  make("a", { href, download: `${name}.wav` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000); // once it is saved
}
