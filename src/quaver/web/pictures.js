// Waveform and spectrogram of one take over one axis of time, drawn while it comes and is played.
// What was played is in the canvas's colour, what is still to come in that of its figure.

import { Analysis, COLUMNS, ROWS } from "./analysis.js";

const LEAST = 4; // seconds that the axis spans
const TILE = 512; // columns
const BUDGET = 8; // milliseconds of a picture frame that may go into analysis
const CALM = 500; // milliseconds between pictures for who prefers reduced motion
const GUTTER = 52; // pixels beside the pictures, for words
const FOOT = 18; // pixels below them
const BAR = 3; // pixels from one bar of the waveform to the next
const QUIET = 0.1; // a waveform is drawn as high as it goes, but not one as quiet as this
const MARKS = [250, 500, 1000, 2000, 4000, 8000]; // Hz

export class Pictures {
  /** Samples that were played. */
  played = 0;
  #wave;
  #spectrum;
  #take = null;
  #analysis = null;
  #tiles = [];
  #busy = false;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  /** @param {HTMLCanvasElement} wave @param {HTMLCanvasElement} spectrum */
  constructor(wave, spectrum) {
    this.#wave = wave;
    this.#spectrum = spectrum;
    new ResizeObserver(() => this.#draw()).observe(wave);
    const root = { attributes: true, attributeFilter: ["data-theme"] };
    new MutationObserver(() => this.#draw()).observe(document.documentElement, root);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /** @param {import("./take.js").Take} take with a rate; samples may still come */
  show(take) {
    this.#take = take;
    this.#analysis = new Analysis(take);
    this.#tiles = [];
    this.played = 0;
    this.refresh();
  }

  clear() {
    this.#take = null;
    this.#draw();
  }

  /** Draw until nothing changes any more. */
  refresh() {
    if (this.#busy || !this.#take) return;
    this.#busy = true;
    if (this.#calm.matches) setTimeout(() => this.#tick(), CALM);
    else requestAnimationFrame(() => this.#tick());
  }

  #tick() {
    this.#busy = false;
    if (!this.#take) return;
    this.#analysis.advance(this.#calm.matches ? 8 * BUDGET : BUDGET);
    this.#paintTiles();
    this.#draw();
    if (!this.#analysis.complete) this.refresh();
  }

  // Levels are opacity; colour comes when they are drawn.
  #paintTiles() {
    const { spectra } = this.#analysis;
    const done = this.#tiles.reduce((sum, tile) => sum + tile.columns, 0);
    for (let start = done; start < spectra.length; ) {
      if (!this.#tiles.length || this.#tiles.at(-1).columns === TILE) this.#tiles.push(newTile());
      const tile = this.#tiles.at(-1);
      const part = spectra.slice(start, start + TILE - tile.columns);
      tile.context.putImageData(image(part), tile.columns, 0);
      tile.columns += part.length;
      start += part.length;
    }
  }

  // In steps while it grows, so that the picture stands still in between; exact at the end.
  #span() {
    const { seconds, ended } = this.#take;
    if (ended) return seconds;
    let span = LEAST;
    while (span < seconds) span *= 1.5;
    return span;
  }

  #draw() {
    for (const canvas of [this.#wave, this.#spectrum]) fit(canvas);
    if (!this.#take?.length || this.#wave.clientWidth <= GUTTER) return;
    const span = this.#span();
    this.#drawWave(span);
    this.#drawSpectrum(span);
  }

  #drawWave(span) {
    const { context, width, height } = surface(this.#wave, 0);
    const { peaks } = this.#analysis;
    const bars = Math.floor(width / BAR);
    const each = (span * COLUMNS) / bars;
    const full = Math.max(QUIET, peaks.reduce((most, peak) => Math.max(most, peak), 0));
    for (let bar = 0; bar * each < peaks.length; bar++) {
      const part = peaks.slice(Math.floor(bar * each), Math.max((bar + 1) * each, bar * each + 1));
      const high = Math.max(1, (Math.max(...part) / full) * (height - 4));
      context.fillRect(bar * BAR, (height - high) / 2, BAR - 1, high);
    }
    this.#tint(context, span, width, height);
  }

  #drawSpectrum(span) {
    const { context, width, height } = surface(this.#spectrum, FOOT);
    const scale = width / (span * COLUMNS);
    this.#tiles.forEach((tile, place) => {
      const wide = tile.columns * scale;
      context.drawImage(tile.canvas, 0, 0, tile.columns, ROWS, place * TILE * scale, 0, wide, height);
    });
    this.#tint(context, span, width, height);
    this.#label(context, span, width, height);
  }

  // Colour for what is drawn, and a line where it sounds.
  #tint(context, span, width, height) {
    const { seconds, rate } = this.#take;
    const now = (this.played / rate / span) * width;
    context.globalCompositeOperation = "source-atop";
    context.fillStyle = color(context.canvas.parentElement);
    context.fillRect(now, 0, width - now, height);
    context.fillStyle = color(context.canvas);
    context.fillRect(0, 0, now, height);
    context.globalCompositeOperation = "source-over";
    if (this.played && this.played / rate < seconds) context.fillRect(now - 1, 0, 1.5, height);
  }

  #label(context, span, width, height) {
    context.fillStyle = color(context.canvas.parentElement);
    context.font = `11px ${getComputedStyle(context.canvas).fontFamily}`;
    context.textBaseline = "middle";
    for (const hertz of MARKS) {
      const y = height * (1 - this.#analysis.rowOf(hertz) / ROWS);
      if (y < 6) continue;
      context.fillText(hertz < 1000 ? `${hertz} Hz` : `${hertz / 1000} kHz`, width + 8, y);
    }
    const step = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300].find((one) => (one / span) * width > 48);
    for (let time = step; time < span * 0.97; time += step) {
      const words = `${time} s`;
      context.fillText(words, (time / span) * width - context.measureText(words).width / 2, height + 12);
    }
  }
}

function newTile() {
  const canvas = make(TILE, ROWS);
  return { canvas, context: canvas.getContext("2d"), columns: 0 };
}

function make(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

/** @param {Uint8Array[]} columns */
function image(columns) {
  const made = new ImageData(columns.length, ROWS);
  columns.forEach((column, x) => {
    column.forEach((level, row) => (made.data[4 * ((ROWS - 1 - row) * columns.length + x) + 3] = level));
  });
  return made;
}

function color(element) {
  return getComputedStyle(element).color;
}

// As many pixels as the screen has; this clears it.
function fit(canvas) {
  canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
  canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
}

// Where to draw, measured in the page's pixels.
function surface(canvas, foot) {
  const context = canvas.getContext("2d");
  context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
  context.fillStyle = "black";
  return { context, width: canvas.clientWidth - GUTTER, height: canvas.clientHeight - foot };
}
