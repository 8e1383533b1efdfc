"use strict";

// On paper nothing can be opened.
const shut = [];
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not([open])")) {
    one.open = true;
    shut.push(one);
  }
});
addEventListener("afterprint", () => {
  while (shut.length) shut.pop().open = false;
});

const sound = new Audio();
document.addEventListener("play", (event) => quiet(event.target), true);
sound.addEventListener("play", () => quiet(sound));

function quiet(but) {
  for (const player of [sound, ...document.querySelectorAll("audio")]) {
    if (player !== but) player.pause();
  }
}

// Of n throws of a fair coin, k or more are heads.
function tail(k, n) {
  let mass = 0.5 ** n;
  let sum = 0;
  for (let heads = 0; heads <= n; heads++) {
    if (heads >= k) sum += mass;
    mass *= (n - heads) / (heads + 1);
  }
  return Math.min(1, sum);
}

function shuffled(things) {
  const found = [...things];
  for (let last = found.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [found[last], found[other]] = [found[other], found[last]];
  }
  return found;
}

function startBlindTest(box) {
  const at = (name) => document.getElementById(`blind-${name}`);
  const data = JSON.parse(at("data").textContent);
  const plays = [...box.querySelectorAll("[data-play]")];
  const ANSWERS = {
    better: [["a", "A is better"], ["same", "No difference"], ["b", "B is better"]],
    x: [["a", "X is A"], ["b", "X is B"]],
  };
  const FIRST = "Hear all, then answer.";
  const votes = [];
  let deck = [];
  let trial = null;

  function address(take) {
    const player = document.querySelector(`audio[data-sound="${take.side}/${take.pair.key}"]`);
    return take.pair[take.side] ?? player.src;
  }

  // Another sentence, in the same voice if there is one: X must not be told by its words.
  function another(pair) {
    const others = data.pairs.filter((one) => one !== pair);
    const same = others.filter((one) => one.voice === pair.voice);
    return shuffled(same.length ? same : others)[0] ?? pair;
  }

  function begin() {
    const task = box.querySelector("[name=blind-task]:checked");
    if (!deck.length) deck = shuffled(data.pairs); // each comes once before any comes again
    const pair = deck.pop();
    const [a, b] = shuffled(["reference", "candidate"]);
    trial = { task: task.value, takes: { A: { pair, side: a }, B: { pair, side: b } } };
    if (trial.task === "x") trial.takes.X = { pair: another(pair), side: shuffled([a, b])[0] };
    at("question").textContent = task.dataset.question;
    for (const play of plays) {
      play.hidden = !(play.dataset.play in trial.takes);
      delete play.dataset.heard;
    }
    at("answers").replaceChildren(...ANSWERS[trial.task].map(answerButton));
  }

  function answerButton([answer, text], place) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: text, disabled: true });
    button.dataset.answer = answer;
    button.setAttribute("aria-keyshortcuts", `${place + 1}`);
    button.addEventListener("click", () => vote(answer));
    return button;
  }

  function say(text) {
    at("said").textContent = text;
  }

  function play(button) {
    if (button.getAttribute("aria-pressed") === "true") {
      sound.pause();
      return;
    }
    stopped();
    sound.src = address(trial.takes[button.dataset.play]);
    button.setAttribute("aria-pressed", "true");
    button.dataset.heard = "";
    sound.play().catch((error) => {
      if (error.name !== "AbortError") say(`This browser does not play it: ${error.message}`);
    });
    if (plays.every((one) => one.hidden || "heard" in one.dataset)) {
      for (const answer of at("answers").children) answer.disabled = false;
      say(`Keys: A, B${trial.takes.X ? ", X" : ""} play, 1 to ${at("answers").childElementCount} answer.`);
    }
  }

  function stopped() {
    for (const button of plays) button.setAttribute("aria-pressed", "false");
  }

  function vote(answer) {
    const { task, takes } = trial;
    const told = { task, utterance: takes.A.pair.key, a: takes.A.side, b: takes.B.side, answer };
    if (takes.X) Object.assign(told, { x: takes.X.side, x_utterance: takes.X.pair.key });
    votes.push(told);
    const focused = at("answers").contains(document.activeElement);
    sound.pause();
    show();
    begin();
    say(`Noted, ${votes.length} so far. Hear the next.`);
    if (focused) plays[0].focus();
  }

  function tally() {
    const better = { candidate: 0, reference: 0, same: 0 };
    const x = { right: 0, n: 0 };
    for (const one of votes) {
      if (one.task === "better") better[one[one.answer] ?? "same"] += 1;
      else {
        x.n += 1;
        x.right += one[one.answer] === one.x;
      }
    }
    const told = better.candidate + better.reference;
    better.p = Math.min(1, 2 * tail(Math.max(better.candidate, better.reference), told));
    x.p = tail(x.right, x.n);
    return { better, x };
  }

  function show() {
    const { better, x } = tally();
    at("count").textContent = votes.length;
    at("result-better").textContent =
      `Better: ${data.names.candidate} (candidate) ${better.candidate}, ` +
      `${data.names.reference} (reference) ${better.reference}, no difference ${better.same}. ` +
      `Of no preference, as uneven a count comes with p = ${better.p.toPrecision(2)} ` +
      "(binomial, two-sided, without ties).";
    at("result-x").textContent =
      `X: ${x.right} of ${x.n} right. Guessing does as well with p = ${x.p.toPrecision(2)} ` +
      "(binomial, one-sided).";
    const { names, weights, texts_sha256 } = data;
    const kept = { schema: 1, names, weights, texts_sha256, tally: { better, x }, votes };
    const text = encodeURIComponent(JSON.stringify(kept, null, 1));
    at("save").href = `data:application/json;charset=utf-8,${text}`;
  }

  for (const button of plays) button.addEventListener("click", () => play(button));
  for (const task of box.querySelectorAll("[name=blind-task]")) {
    task.addEventListener("change", () => {
      sound.pause();
      begin();
      say(FIRST);
    });
  }
  sound.addEventListener("pause", stopped);
  sound.addEventListener("ended", stopped);
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const button =
      plays.find((one) => one.dataset.play.toLowerCase() === key && !one.hidden) ??
      at("answers").children[Number(key) - 1];
    if (button) button.click();
  });
  box.hidden = false;
  show();
  begin();
  say(FIRST);
}

const box = document.getElementById("blind-test");
if (box) startBlindTest(box);
