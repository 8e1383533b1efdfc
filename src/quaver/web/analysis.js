// Sound as columns: of each hundredth of a second its loudest sample and its spectrum.

import { FFT } from "./fft.js";

export const COLUMNS = 100; // a second
export const ROWS = 96; // of a spectrum, equally far apart in mel; the lowest first
const WINDOW = 0.025; // seconds
const FLOOR = -100; // dB below a full-scale sine that show as nothing
const CEILING = -25; // dB that show as everything

const toMel = (hertz) => 2595 * Math.log10(1 + hertz / 700);
const toHertz = (mel) => 700 * (10 ** (mel / 2595) - 1);

export class Analysis {
  /** Loudest sample of each column, 0 to 1. @type {number[]} */
  peaks = [];
  /** Spectrum of each column, 0 to 255 for FLOOR to CEILING. @type {Uint8Array[]} */
  spectra = [];
  #take;
  #hop;
  #window;
  #frame;
  #power;
  #fft;
  #edges;

  /** @param {import("./take.js").Take} take may still grow */
  constructor(take) {
    this.#take = take;
    this.#hop = take.rate / COLUMNS;
    const size = Math.round(WINDOW * take.rate);
    const shape = (_, k) => 0.5 - 0.5 * Math.cos((2 * Math.PI * (k + 0.5)) / size); // Hann
    this.#window = Float32Array.from({ length: size }, shape);
    this.#fft = new FFT(2 ** Math.ceil(Math.log2(2 * size))); // zeros between: smooth in frequency
    this.#frame = new Float32Array(this.#fft.size);
    this.#power = new Float32Array(this.#fft.size / 2 + 1);
    this.#edges = this.#rowEdges();
  }

  /** Make columns of what has come, for so many milliseconds at most. */
  advance(budget) {
    const until = performance.now() + budget;
    while (this.#ready() && performance.now() < until) this.#column();
  }

  /** All is made that will be. */
  get complete() {
    return this.#take.ended && !this.#ready();
  }

  /** Row, from 0 at the bottom, of a frequency. */
  rowOf(hertz) {
    return (ROWS * toMel(hertz)) / toMel(this.#take.rate / 2);
  }

  #ready() {
    const start = this.peaks.length * this.#hop;
    const { length, ended } = this.#take;
    return ended ? start < length : start + this.#hop + this.#window.length <= length;
  }

  #column() {
    const start = Math.round(this.peaks.length * this.#hop);
    const { samples } = this.#take;
    const peak = samples.subarray(start, start + this.#hop).reduce(louder, 0);
    this.peaks.push(peak / 32768);
    const first = Math.round(start + (this.#hop - this.#window.length) / 2);
    for (let k = 0; k < this.#window.length; k++) {
      this.#frame[k] = ((samples[first + k] ?? 0) * this.#window[k]) / 32768;
    }
    this.#fft.power(this.#frame, this.#power);
    this.spectra.push(this.#rows());
  }

  #rows() {
    const scale = 16 / this.#window.length ** 2; // a full-scale sine under a Hann window is 1
    const rows = new Uint8Array(ROWS);
    for (let row = 0; row < ROWS; row++) {
      const [low, high] = this.#edges[row];
      const power = this.#power.subarray(low, high).reduce((most, one) => Math.max(most, one), 0);
      const level = 10 * Math.log10(scale * power + 1e-12);
      rows[row] = 255 * Math.min(Math.max((level - FLOOR) / (CEILING - FLOOR), 0), 1);
    }
    return rows;
  }

  // The bins of each row, one at least.
  #rowEdges() {
    const top = toMel(this.#take.rate / 2);
    const bin = (row) => (toHertz((row * top) / ROWS) / this.#take.rate) * this.#fft.size;
    return Array.from({ length: ROWS }, (_, row) => {
      const low = Math.floor(bin(row));
      return [low, Math.max(low + 1, Math.floor(bin(row + 1)))];
    });
  }
}

const louder = (most, sample) => Math.max(most, Math.abs(sample));
