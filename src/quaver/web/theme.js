// Light or dark: the system's choice, or the reader's.

import { at } from "./dom.js";
import { Kept } from "./storage.js";

const kept = new Kept(() => localStorage, "quaver.theme");

function apply() {
  document.documentElement.dataset.theme = kept.value ?? "auto";
}

apply();

addEventListener("DOMContentLoaded", () => {
  const choice = at("theme");
  choice.value = document.documentElement.dataset.theme;
  choice.addEventListener("change", () => {
    kept.value = choice.value === "auto" ? null : choice.value;
    apply();
  });
});
