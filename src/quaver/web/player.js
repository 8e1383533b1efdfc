// From samples to the loudspeaker. Playing happens on the audio thread, where a busy page cannot
// make it stutter. Browsers keep that thread from pages that come over plain HTTP from another
// machine (a phone in the same network); there the page feeds the loudspeaker itself.

import { SampleQueue } from "./queue.js";

const BLOCK = 2048; // samples, where the page feeds the loudspeaker

/** One stream of samples that is being played. */
class WorkletSource {
  constructor(context, heard) {
    const shape = { numberOfInputs: 0, outputChannelCount: [1] };
    this.node = new AudioWorkletNode(context, "source", shape);
    this.node.port.onmessage = ({ data }) => heard(data);
  }

  /** @param {Float32Array} samples taken over, not to be used after */
  push(samples) {
    this.node.port.postMessage(samples, [samples.buffer]);
    return this;
  }

  close() {
    this.node.port.postMessage("close");
  }

  stop() {
    this.node.port.onmessage = null;
    this.node.port.postMessage("stop");
    this.node.disconnect();
  }
}

class PageSource {
  constructor(context, heard) {
    const queue = new SampleQueue(context.sampleRate);
    this.queue = queue;
    this.node = context.createScriptProcessor(BLOCK, 0, 1);
    this.node.onaudioprocess = ({ outputBuffer }) => {
      queue.read(outputBuffer.getChannelData(0));
      heard({ ...queue.report });
    };
  }

  push(samples) {
    this.queue.push(samples);
    return this;
  }

  close() {
    this.queue.close();
  }

  stop() {
    this.node.onaudioprocess = null;
    this.node.disconnect();
  }
}

export class Player {
  #context = null;
  #awake = null;
  #ready = null;
  #source = null;

  /**
   * Take hold of the loudspeaker. Call it in a click or key press, or browsers keep it silent.
   * @param {number} rate samples a second
   */
  wake(rate) {
    if (this.#context?.sampleRate !== rate) this.#open(rate);
    this.#awake = this.#context.resume();
    return this.#awake;
  }

  /**
   * Start a new stream, which ends the one before.
   * @param {number} rate samples a second
   * @param {(report: import("./queue.js").Report) => void} heard is told some 20 times a second
   * @returns {Promise<WorkletSource | PageSource>}
   */
  async begin(rate, heard) {
    this.stop();
    await this.wake(rate);
    await this.#ready;
    const Source = this.#context.audioWorklet ? WorkletSource : PageSource;
    this.#source = new Source(this.#context, heard);
    this.#source.node.connect(this.#context.destination);
    return this.#source;
  }

  /** Silence, now. */
  stop() {
    this.#source?.stop();
    this.#source = null;
  }

  // A context at the stream's own rate leaves resampling to the browser.
  #open(rate) {
    if (this.#context) shut(this.#context, this.#awake);
    const context = new AudioContext({ sampleRate: rate });
    this.#context = context;
    this.#ready = context.audioWorklet?.addModule(new URL("worklet.js", import.meta.url));
    this.#ready?.catch(() => this.#forget(context)); // the next stream tries again
  }

  #forget(context) {
    if (this.#context !== context) return;
    shut(context, this.#awake);
    this.#context = null;
  }
}

async function shut(context, awake) {
  await awake;
  await context.close();
}
