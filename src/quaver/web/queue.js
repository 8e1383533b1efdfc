// Samples that wait to be played. The audio thread reads from it (worklet.js), or, where a page may
// not have one, the page itself (player.js).

const REFILL = 0.25; // seconds that must be there before sound goes on after the first gap

/** @typedef {{played: number, underruns: number, gap: number, finished: boolean}} Report
 * `played` and `gap` (silence within speech) are in samples. */

export class SampleQueue {
  #pieces = [];
  #offset = 0; // into the first piece
  #waiting = 0; // samples
  #dry = 0; // samples of silence since it ran dry
  #closed = false;
  #refill;
  /** @type {Report} */
  report = { played: 0, underruns: 0, gap: 0, finished: false };

  /** @param {number} rate samples a second */
  constructor(rate) {
    this.#refill = REFILL * rate;
  }

  /** @param {Float32Array} samples */
  push(samples) {
    if (!samples.length) return;
    this.#pieces.push(samples);
    this.#waiting += samples.length;
  }

  /** Nothing more will be pushed. */
  close() {
    this.#closed = true;
  }

  /** Fill `out` with what is there, and silence after it. @param {Float32Array} out */
  read(out) {
    const flows = !this.#dry || this.#closed || this.#waiting >= this.#refill;
    const filled = flows ? this.#take(out) : 0;
    out.fill(0, filled);
    if (filled === out.length) return;
    if (this.#closed && !this.#waiting) this.report.finished = true;
    else if (this.report.played) this.#dry += out.length - filled;
  }

  #take(out) {
    let filled = 0;
    while (filled < out.length && this.#waiting) {
      const first = this.#pieces[0];
      const part = first.subarray(this.#offset, this.#offset + out.length - filled);
      out.set(part, filled);
      filled += part.length;
      this.#offset += part.length;
      this.#waiting -= part.length;
      if (this.#offset === first.length) {
        this.#pieces.shift();
        this.#offset = 0;
      }
    }
    if (filled && this.#dry) this.#resume();
    this.report.played += filled;
    return filled;
  }

  // Running dry is an underrun once sound goes on after it; at the end of speech it is none.
  #resume() {
    this.report.underruns += 1;
    this.report.gap += this.#dry;
    this.#dry = 0;
    this.#refill *= 2; // one long gap is better to listen to than many
  }
}
