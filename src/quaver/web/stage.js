// What sounds: one thing at a time, spoken by the server just now or played again.

import { Pictures } from "./pictures.js";
import { Player } from "./player.js";
import { openSpeech } from "./speech.js";
import { Take, toFloat } from "./take.js";

/** @typedef {"idle" | "waiting" | "speaking" | "playing"} State
 * waiting for the server, hearing what it speaks, hearing what it spoke before */

export class Stage extends EventTarget {
  /** @type {State} */
  state = "idle";
  /** What is drawn. @type {Take | null} */
  take = null;
  /** What is played again. @type {Take | null} */
  playing = null;
  #player = new Player();
  #pictures;
  #turn = new AbortController();

  /** Sends "state" when the state changes and "progress" when samples come or are played. */
  constructor(wave, spectrum) {
    super();
    this.#pictures = new Pictures(wave, spectrum);
  }

  /**
   * Ask for speech and play it from its first samples on. Ends when the last was heard.
   * @param {import("./speech.js").Wish} wish @param {string} key
   * @param {number} rate samples a second that will come
   * @param {(take: Take) => void} keep gets what came, as soon as no more will come
   * @returns {Promise<boolean>} false if it was stopped; raises SpeechError
   */
  async speak(wish, key, rate, keep) {
    const take = new Take(wish);
    const signal = this.#begin("waiting", take);
    this.#player.wake(rate);
    this.#pictures.clear();
    try {
      const { rate, leftOut, pieces } = await openSpeech(wish, key, signal);
      take.rate = rate;
      take.leftOut = leftOut;
      await this.#hear(take, pieces, signal, keep);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      this.#finish(signal);
    }
    return !signal.aborted;
  }

  /** Play a take again, with its pictures. */
  replay(take) {
    return this.#play(take, 1, true);
  }

  /** Play a take and show nothing of it. @param {Take} take @param {number} gain */
  playBlind(take, gain) {
    return this.#play(take, gain, false);
  }

  /** Silence; what the server still speaks is cancelled. */
  stop() {
    this.#turn.abort();
    this.#player.stop();
    this.#become("idle");
  }

  async #hear(take, pieces, signal, keep) {
    const [heard, end] = this.#listen(signal, (report) => (take.underruns = report.underruns));
    let source = this.#player.begin(take.rate, heard);
    this.#pictures.show(take);
    let whole = false;
    try {
      for await (const piece of pieces) {
        take.push(piece);
        this.#become("speaking");
        this.#progress();
        source = source.then((one) => one.push(toFloat(piece))); // the next piece need not wait
      }
      whole = true;
    } finally {
      take.end(whole);
      this.#pictures.refresh();
      if (take.length) keep(take);
      (await source).close();
    }
    await ended(end, signal);
  }

  async #play(take, gain, seen) {
    const signal = this.#begin("playing", seen ? take : this.take, take);
    const [heard, end] = seen ? this.#listen(signal) : quietly();
    if (seen) this.#pictures.show(take);
    const source = await this.#player.begin(take.rate, heard);
    if (signal.aborted) return;
    source.push(toFloat(take.samples, gain));
    source.close();
    await ended(end, signal);
    this.#finish(signal);
  }

  // What the player is to tell, and a promise of the end.
  #listen(signal, also = () => {}) {
    const [heard, end] = quietly();
    const told = (report) => {
      if (signal.aborted) return;
      also(report);
      this.#pictures.played = report.played;
      this.#pictures.refresh();
      this.#progress();
      heard(report);
    };
    return [told, end];
  }

  #begin(state, take, playing = null) {
    this.stop();
    Object.assign(this, { take, playing });
    this.#turn = new AbortController();
    this.#become(state);
    return this.#turn.signal;
  }

  #finish(signal) {
    if (signal.aborted) return; // whoever stopped it has seen to that
    this.#player.stop();
    this.#become("idle");
  }

  #become(state) {
    if (this.state === state) return;
    this.state = state;
    if (state === "idle") this.playing = null;
    this.dispatchEvent(new Event("state"));
  }

  #progress() {
    this.dispatchEvent(new Event("progress"));
  }
}

function quietly() {
  let tell;
  const end = new Promise((resolve) => (tell = resolve));
  return [(report) => report.finished && tell(), end];
}

function ended(end, signal) {
  const stopped = new Promise((resolve) => signal.addEventListener("abort", resolve));
  return signal.aborted ? null : Promise.race([end, stopped]);
}
