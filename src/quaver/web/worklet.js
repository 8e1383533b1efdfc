// Runs on the audio thread: what the page sends is played, and how far it got is told.

import { SampleQueue } from "./queue.js";

const BLOCKS = 8; // of 128 samples, between two reports

class Source extends AudioWorkletProcessor {
  #queue = new SampleQueue(sampleRate);
  #blocks = 0;
  #stopped = false;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      if (data === "stop") this.#stopped = true;
      else if (data === "close") this.#queue.close();
      else this.#queue.push(data);
    };
  }

  process(_inputs, [[out]]) {
    if (this.#stopped) return false;
    this.#queue.read(out);
    const { report } = this.#queue;
    this.#blocks += 1;
    if (report.finished || this.#blocks % BLOCKS === 0) this.port.postMessage(report);
    return !report.finished;
  }
}

registerProcessor("source", Source);
