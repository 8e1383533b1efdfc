// One utterance as it came: its samples, when they came, and the file made of them.

const AUDIBLE = 104; // of 32768: 50 dB below full scale, as the server counts
const WAV_HEADER = 44; // bytes

/** @typedef {import("./speech.js").Wish} Wish */

export class Take {
  /** Samples in 16 bits; the first `length` are there. */
  #room = new Int16Array(2 ** 16);
  length = 0;
  rate = 0;
  /** Characters of the text that the model cannot read. */
  leftOut = 0;
  /** Nothing is missing at its end. */
  whole = false;
  /** Nothing more will come. */
  ended = false;
  underruns = 0;
  /** @type {number | null} milliseconds from `sent` to the arrival of the first audible sample */
  ttfa = null;
  #sent = performance.now();
  #last = 0;

  /** The clock starts now. @param {Wish} wish */
  constructor(wish) {
    this.wish = wish;
  }

  get samples() {
    return this.#room.subarray(0, this.length);
  }

  get seconds() {
    return this.rate ? this.length / this.rate : 0;
  }

  /** Seconds from the request to the last sample, per second of speech; null before any came. */
  get rtf() {
    return this.length ? (this.#last - this.#sent) / 1000 / this.seconds : null;
  }

  /** @param {Int16Array} piece */
  push(piece) {
    const length = this.length + piece.length;
    if (length > this.#room.length) {
      const room = new Int16Array(2 * length);
      room.set(this.samples);
      this.#room = room;
    }
    this.#room.set(piece, this.length);
    this.length = length;
    this.#last = performance.now();
    if (this.ttfa === null && piece.some((sample) => Math.abs(sample) >= AUDIBLE)) {
      this.ttfa = this.#last - this.#sent;
    }
  }

  /** Nothing more comes. @param {boolean} whole whether that is all of it */
  end(whole) {
    this.whole = whole;
    this.ended = true;
    this.#room = this.samples.slice();
  }

  /** Root of the mean square, of 1. */
  get level() {
    const sum = this.samples.reduce((all, sample) => all + sample ** 2, 0);
    return Math.sqrt(sum / this.length) / 32768;
  }

  /** A WAV file in 16 bits, mono. */
  wav() {
    const header = new DataView(new ArrayBuffer(WAV_HEADER));
    const bytes = 2 * this.length;
    const words = [[0, "RIFF"], [8, "WAVE"], [12, "fmt "], [36, "data"]];
    for (const [at, word] of words) {
      for (let k = 0; k < 4; k++) header.setUint8(at + k, word.charCodeAt(k));
    }
    header.setUint32(4, WAV_HEADER - 8 + bytes, true);
    header.setUint32(16, 16, true); // bytes of the format that follow
    header.setUint16(20, 1, true); // plain PCM
    header.setUint16(22, 1, true); // channels
    header.setUint32(24, this.rate, true);
    header.setUint32(28, 2 * this.rate, true); // bytes a second
    header.setUint16(32, 2, true); // bytes a frame
    header.setUint16(34, 16, true); // bits
    header.setUint32(40, bytes, true);
    return new Blob([header, this.samples], { type: "audio/wav" });
  }
}

/** Samples in -1..1, as players take them. @param {Int16Array} piece */
export function toFloat(piece, gain = 1) {
  return Float32Array.from(piece, (sample) => (sample * gain) / 32768);
}
