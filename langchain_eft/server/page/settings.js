/** The numbers under "More". */

import { element, newId } from "./dom.js";

/** Each number: its part of the state, its parameter in requests, and how it is described. */
const SETTINGS = [
  [
    "strength",
    "upscale_strength",
    "Strength of the base",
    0.1,
    "How much the large model adds; 0 is the small models alone.",
  ],
  ["topP", "upscale_top_p", "Truncation", 0.05, "Below 1, the large model re-weights only likely tokens."],
  ["temperature", "temperature", "Temperature", 0.1, "0 always takes the likeliest token."],
  ["seed", "seed", "Seed", 1, "The same seed draws the same answer."],
  ["maxTokens", "max_tokens", "Longest answer", 1, "In tokens."],
];

/** @param {HTMLElement} root @param {import("./store.js").Store} store */
export function createSettings(root, store) {
  root.append(...SETTINGS.map((setting) => settingField(store, ...setting)));
}

function settingField(store, part, param, title, step, hint) {
  const id = newId("setting");
  const input = element("input", {
    type: "number",
    id,
    step,
    min: 0,
    class: "number",
    "aria-describedby": `${id}-hint`,
    oninput: () => Number.isNaN(input.valueAsNumber) || store.set({ [part]: input.valueAsNumber }),
  });
  store.subscribe((state) => {
    if (document.activeElement !== input) input.value = String(state[part]);
  });
  return element(
    "div",
    { "data-param": param },
    element("div", { class: "setting" }, element("label", { for: id }, title), input),
    element("p", { class: "hint", id: `${id}-hint` }, hint),
  );
}
