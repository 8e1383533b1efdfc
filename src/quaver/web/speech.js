// What the page asks of the server, over the API that everybody else uses too.

/** @typedef {{id: string, recipe: string, recipes: string[], tags: string[], sample_rate: number,
 *   ready: boolean}} Model
 * @typedef {{model: string, input: string, voice: string, recipe: string, seed: number,
 *   speed: number}} Wish */

export const PCM_RATE = 24000; // Hz of pcm, whatever the model's own rate is
const LONGEST_WAIT = 3600; // seconds that a Retry-After may ask for

/** What went wrong, in words for whoever pressed the button. */
export class SpeechError extends Error {
  /**
   * @param {string} title what happened
   * @param {string} detail the server's own words, or what to do
   * @param {{kind?: string, param?: string | null, wait?: number | null}} [more]
   *   `kind` is "key" where a key is asked for; `param` the field refused; `wait` in seconds
   */
  constructor(title, detail, { kind = "other", param = null, wait = null } = {}) {
    super(`${title} ${detail}`);
    this.title = title;
    this.detail = detail;
    this.kind = kind;
    this.param = param;
    this.wait = wait;
  }
}

/**
 * The model that the server speaks with, null until it is loaded, and its voices.
 * @param {string} key
 * @returns {Promise<{model: Model | null, voices: {id: string, name: string}[]}>}
 */
export async function catalogue(key) {
  const [models, voices] = await Promise.all(
    ["v1/models", "v1/audio/voices"].map(async (path) => (await ask(path, key, {})).json()),
  );
  const model = models.data[0]; // those after it are the same model in one recipe each
  return { model: model.ready ? model : null, voices: voices.voices };
}

/**
 * Ask for speech.
 * @param {Wish} wish
 * @param {string} key
 * @param {AbortSignal} signal ends the request, and with it the server's work
 * @returns {Promise<{rate: number, leftOut: number, pieces: AsyncGenerator<Int16Array>}>}
 *   `leftOut` counts characters that the model cannot read
 */
export async function openSpeech(wish, key, signal) {
  const body = JSON.stringify({ ...wish, response_format: "pcm" });
  const headers = { "Content-Type": "application/json" };
  const response = await ask("v1/audio/speech", key, { method: "POST", headers, body, signal });
  const rate = Number(response.headers.get("X-Sample-Rate") ?? PCM_RATE);
  const leftOut = Number(response.headers.get("X-Characters-Left-Out") ?? 0);
  return { rate, leftOut, pieces: pieces(response.body.getReader()) };
}

/** A whole utterance, not played. @param {import("./take.js").Take} take takes the samples */
export async function collect(take, key, signal) {
  const stream = await openSpeech(take.wish, key, signal);
  take.rate = stream.rate;
  take.leftOut = stream.leftOut;
  for await (const piece of stream.pieces) take.push(piece);
  take.end(true);
}

async function ask(path, key, options) {
  if (/[^\x21-\x7e]/.test(key)) {
    const detail = "It has spaces, or letters that a key cannot have. Copy it again.";
    throw new SpeechError("This is not a key.", detail, { kind: "key" });
  }
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await reach(fetch(new URL(path, document.baseURI), { ...options, headers }), () => {
    return new SpeechError("The server does not answer.", `Is it running at ${location.host}?`);
  });
  if (!response.ok) throw await refusal(response);
  return response;
}

// Networks fail with a TypeError; a request that was cancelled, with an AbortError.
async function reach(promise, lost) {
  try {
    return await promise;
  } catch (error) {
    throw error instanceof TypeError ? lost() : error;
  }
}

async function* pieces(reader) {
  let rest = new Uint8Array(0); // half a sample
  let some = false;
  while (true) {
    const { done, value } = await reach(reader.read(), () => cut(some));
    if (done) break;
    const bytes = new Uint8Array(rest.length + value.length);
    bytes.set(rest);
    bytes.set(value, rest.length);
    const even = bytes.length & ~1;
    rest = bytes.subarray(even);
    if (even) yield new Int16Array(bytes.buffer, 0, even / 2);
    some ||= even > 0;
  }
  if (rest.length) throw cut(some);
  if (!some) throw new SpeechError("Nothing came.", "The server sent no sound for this text.");
}

function cut(some) {
  const kept = some ? " What arrived is in the history." : "";
  const detail = `The server or the network went away amid its answer.${kept}`;
  return new SpeechError("The speech was cut off.", detail);
}

const TITLES = {
  401: "The server wants a key.",
  429: "The server is busy.",
  503: "The server is not ready.",
};

/** @param {Response} response */
async function refusal(response) {
  const { status } = response;
  const { message, param } = await said(response);
  const title = TITLES[status] ?? (status < 500 ? "The server refused." : "The server failed.");
  const wait = waiting(response.headers.get("Retry-After"));
  const detail = sentence(message) + (wait ? ` It asks you to wait ${wait} s.` : "");
  const kind = status === 401 ? "key" : "other";
  return new SpeechError(title, detail, { kind, param, wait });
}

function sentence(words) {
  return words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");
}

// Proxies answer with pages of their own.
async function said(response) {
  const text = await response.text();
  const plain = { message: `it answered ${response.status} ${response.statusText}`.trim() };
  if (!response.headers.get("Content-Type")?.includes("json")) return plain;
  return JSON.parse(text).error ?? plain;
}

// Seconds, or a date.
function waiting(after) {
  if (after === null) return null;
  const seconds = Number.isNaN(Number(after)) ? (Date.parse(after) - Date.now()) / 1000 : Number(after);
  return Number.isNaN(seconds) ? null : Math.min(Math.max(Math.ceil(seconds), 0), LONGEST_WAIT);
}
