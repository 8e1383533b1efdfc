// A fast Fourier transform (Cooley and Tukey, radix 2) of real input.

export class FFT {
  #cos;
  #sin;
  #swap;
  #re;
  #im;

  /** @param {number} size a power of two */
  constructor(size) {
    this.size = size;
    this.#re = new Float32Array(size);
    this.#im = new Float32Array(size);
    this.#cos = Float32Array.from({ length: size / 2 }, (_, k) => Math.cos((2 * Math.PI * k) / size));
    this.#sin = Float32Array.from({ length: size / 2 }, (_, k) => Math.sin((2 * Math.PI * k) / size));
    this.#swap = new Uint16Array(size);
    for (let k = 1; k < size; k++) this.#swap[k] = (this.#swap[k >> 1] >> 1) | (k & 1 ? size / 2 : 0);
  }

  /** |X|² of bins 0 to size/2 into `out`. @param {Float32Array} input @param {Float32Array} out */
  power(input, out) {
    for (let k = 0; k < this.size; k++) this.#re[k] = input[this.#swap[k]];
    this.#im.fill(0);
    for (let half = 1; half < this.size; half *= 2) this.#stage(half);
    for (let k = 0; k <= this.size / 2; k++) out[k] = this.#re[k] ** 2 + this.#im[k] ** 2;
  }

  #stage(half) {
    const re = this.#re;
    const im = this.#im;
    const step = this.size / (2 * half);
    for (let start = 0; start < this.size; start += 2 * half) {
      for (let k = 0; k < half; k++) {
        const low = start + k;
        const high = low + half;
        const cos = this.#cos[k * step];
        const sin = this.#sin[k * step];
        const x = re[high] * cos + im[high] * sin;
        const y = im[high] * cos - re[high] * sin;
        re[high] = re[low] - x;
        im[high] = im[low] - y;
        re[low] += x;
        im[low] += y;
      }
    }
  }
}
