// The page: what its parts do together.

import { BlindTest } from "./ab.js";
import { Composer } from "./composer.js";
import { at } from "./dom.js";
import { History } from "./history.js";
import { Problem } from "./problem.js";
import { catalogue, PCM_RATE } from "./speech.js";
import { Stage } from "./stage.js";
import { Kept } from "./storage.js";

const POLL = 2000; // milliseconds, while the server loads its model

let poll = 0;
const key = new Kept(() => sessionStorage, "quaver.key"); // forgotten with the tab
const stage = new Stage(at("wave"), at("spectrum"));
const composer = new Composer();
const history = new History(stage, composer);
const blind = new BlindTest(stage, composer);
const problem = new Problem(composer);

async function speak() {
  if (["waiting", "speaking"].includes(stage.state) || !composer.valid) return;
  problem.clear();
  await guard(speak, async () => {
    const { wish } = composer;
    const keep = (take) => history.add(take);
    const whole = await stage.speak(wish, key.value ?? "", PCM_RATE, keep);
    if (whole) say(`Finished: ${stage.take.seconds.toFixed(1)} s of speech.${lacking(stage.take)}`);
  });
}

function lacking({ leftOut }) {
  if (!leftOut) return "";
  const what = leftOut === 1 ? "1 character was" : `${leftOut} characters were`;
  return ` ${what} left out: the model cannot read everything.`;
}

async function compare() {
  if (blind.preparing) return blind.cancel();
  if (!composer.valid) return;
  problem.clear();
  await guard(compare, () => blind.prepare(key.value ?? ""));
}

async function enter() {
  clearTimeout(poll);
  problem.clear();
  await guard(enter, async () => {
    const { model, voices } = await catalogue(key.value ?? "");
    if (!model) {
      say("The server loads its model.");
      poll = setTimeout(enter, POLL);
      return;
    }
    composer.offer(model, voices);
    blind.offer();
    at("server").textContent = `${model.id} · ${model.recipes.join(", ")}`;
    say("Ready.");
  });
}

// What goes wrong is shown, with a way to try it again.
async function guard(again, work) {
  try {
    await work();
  } catch (error) {
    say("");
    problem.show(error, again);
  }
}

function cancel() {
  const speaks = stage.state !== "idle";
  stage.stop();
  blind.cancel();
  if (speaks) say("Stopped.");
}

const WORDS = {
  idle: "",
  waiting: "Waiting for the first sound.",
  speaking: "Speaking.",
  playing: "Playing.",
};

function showState() {
  const { state } = stage;
  say(WORDS[state]);
  at("cancel").setAttribute("aria-disabled", String(state === "idle"));
  at("speak").setAttribute("aria-disabled", String(state === "waiting" || state === "speaking"));
  if (state === "waiting") showNumbers();
}

function showNumbers() {
  const { take } = stage;
  const { ttfa, rtf, seconds, underruns } = take;
  at("ttfa").textContent = ttfa === null ? "–" : `${Math.round(ttfa)} ms`;
  at("rtf").textContent = rtf === null ? "–" : rtf.toFixed(2);
  at("rtfx").textContent = rtf === null ? "" : `RTFx ${(1 / rtf).toFixed(1)}`;
  at("seconds").textContent = `${seconds.toFixed(1)} s`;
  at("underruns").textContent = underruns;
  at("nothing").hidden = take.length > 0;
}

function say(words) {
  if (at("status").textContent !== words) at("status").textContent = words; // or it is read out again
}

stage.addEventListener("state", showState);
stage.addEventListener("progress", showNumbers);
at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  speak();
});
at("cancel").addEventListener("click", cancel);
at("ab-start").addEventListener("click", compare);
at("key").value = key.value ?? "";
at("key").addEventListener("change", () => {
  key.value = at("key").value.trim();
  enter();
});
addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Escape") cancel();
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  speak();
});
showState();
enter();
