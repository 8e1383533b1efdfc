// A blind test of two recipes: the same text, voice and seed from both, heard as X and Y in an order
// that is told after the vote.

import { choices } from "./composer.js";
import { at } from "./dom.js";
import { collect } from "./speech.js";
import { Kept } from "./storage.js";
import { Take } from "./take.js";
import { noVotes, preference, telling } from "./tally.js";

const SIDES = ["x", "y"];

export class BlindTest {
  /** The server speaks for a round to come. */
  preparing = false;
  #stage;
  #composer;
  #kept = new Kept(() => localStorage, "quaver.ab");
  #turn = new AbortController();
  /** @type {{names: string[], x: Take, y: Take, heard: Set<string>} | null} */
  #round = null;

  constructor(stage, composer) {
    this.#stage = stage;
    this.#composer = composer;
    for (const id of ["ab-first", "ab-second"]) at(id).addEventListener("change", () => this.#reset());
    for (const side of SIDES) at(`ab-${side}`).addEventListener("click", () => this.#play(side));
    at("ab-vote").addEventListener("submit", (event) => this.#vote(event));
    at("ab-clear").addEventListener("click", () => this.#count(noVotes()));
    at("ab").addEventListener("keydown", (event) => this.#pressed(event));
    stage.addEventListener("state", () => this.#mark());
  }

  /** Show what can be compared. */
  offer() {
    const { recipes } = this.#composer.model;
    const pairs = recipes.map((name) => [name, name]);
    choices(at("ab-first"), pairs);
    choices(at("ab-second"), pairs);
    if (recipes.length > 1 && this.#alike()) at("ab-second").value = recipes[1];
    at("ab-none").hidden = recipes.length > 1;
    at("ab-body").hidden = recipes.length < 2;
    this.#reset();
  }

  /** Have both recipes speak, in an order of chance, and start a round. Raises SpeechError. */
  async prepare(key) {
    if (this.#alike()) {
      this.#say("Both are the same recipe. Choose two.");
      return;
    }
    this.#reset();
    this.#stage.stop();
    const { signal } = (this.#turn = new AbortController());
    const names = this.#names;
    const { wish } = this.#composer;
    const takes = [];
    this.preparing = true;
    at("ab-start").textContent = "Cancel";
    try {
      for (const recipe of shuffled(names)) {
        this.#say(`The server speaks: ${takes.length + 1} of 2.`);
        const take = new Take({ ...wish, recipe });
        takes.push(take);
        await collect(take, key, signal);
      }
      this.#begin(names, shuffled(takes));
    } catch (error) {
      this.#say(signal.aborted ? "Cancelled." : "");
      if (!signal.aborted) throw error;
    } finally {
      this.preparing = false;
      at("ab-start").textContent = "Start a round";
    }
  }

  /** Stop preparing a round. */
  cancel() {
    this.#turn.abort();
  }

  // In an order that does not depend on which picker has which.
  get #names() {
    return [at("ab-first").value, at("ab-second").value].sort();
  }

  #alike() {
    return at("ab-first").value === at("ab-second").value;
  }

  #begin(names, [x, y]) {
    this.#round = { names, x, y, heard: new Set() };
    at("ab-vote").reset();
    at("ab-vote").hidden = false;
    at("ab-asked").textContent = names[0];
    this.#mark();
    this.#say("Hear X and Y, as often as you like, then vote.");
    at("ab-x").focus();
  }

  #play(side) {
    const round = this.#round;
    if (this.#stage.playing === round[side]) {
      this.#stage.stop();
      return;
    }
    const other = side === "x" ? round.y : round.x;
    const gain = Math.min(1, other.level / (round[side].level || 1)); // loudness must not tell them apart
    round.heard.add(side);
    this.#stage.playBlind(round[side], gain);
  }

  #mark() {
    if (!this.#round) return;
    for (const side of SIDES) {
      const button = at(`ab-${side}`);
      const plays = this.#stage.playing === this.#round[side];
      button.textContent = `${plays ? "Stop" : "Play"} ${side.toUpperCase()}`;
      button.classList.toggle("heard", this.#round.heard.has(side));
    }
  }

  #vote(event) {
    event.preventDefault();
    const { names, heard, ...takes } = this.#round;
    const { better, guess } = Object.fromEntries(new FormData(at("ab-vote")));
    if (heard.size < 2) return this.#say("Hear both first.");
    if (!better || !guess) return this.#say("Answer both questions.");
    this.#stage.stop();
    const right = takes[guess].wish.recipe === names[0];
    const liked = takes[better]?.wish.recipe;
    const votes = this.#votes;
    votes[liked ? (liked === names[0] ? "first" : "second") : "same"] += 1;
    votes[right ? "right" : "wrong"] += 1;
    const [x, y] = SIDES.map((side) => takes[side].wish.recipe);
    this.#reset();
    this.#count(votes);
    this.#say(`X was ${x}, Y was ${y}: your guess was ${right ? "right" : "wrong"}.`);
    at("ab-start").focus();
  }

  #reset() {
    this.cancel();
    this.#round = null;
    at("ab-vote").hidden = true;
    this.#say("");
    this.#show();
  }

  // Votes of this model and pair.
  get #place() {
    return [this.#composer.model.id, ...this.#names].join(" ");
  }

  get #votes() {
    return { ...noVotes(), ...tallies(this.#kept.value)[this.#place] };
  }

  #count(votes) {
    this.#kept.value = JSON.stringify({ ...tallies(this.#kept.value), [this.#place]: votes });
    this.#show();
  }

  #show() {
    const votes = this.#votes;
    at("ab-better").textContent = preference(votes, this.#names);
    at("ab-told-apart").textContent = telling(votes);
    at("ab-tally").hidden = !(votes.right + votes.wrong);
  }

  #pressed(event) {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey || event.altKey || !this.#round) return;
    if (SIDES.includes(key) && !event.target.matches("select")) this.#play(key);
  }

  #say(words) {
    at("ab-said").textContent = words;
  }
}

// What is not a tally of ours counts as none. @param {string | null} text
function tallies(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch (error) {
    if (error instanceof SyntaxError) return {};
    throw error;
  }
}

/** @template T @param {T[]} pair */
function shuffled(pair) {
  const turned = crypto.getRandomValues(new Uint8Array(1))[0] & 1;
  return turned ? [pair[1], pair[0]] : pair;
}
