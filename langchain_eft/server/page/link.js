/** The whole state in the link's fragment, which browsers never send to a server. */

import { formatMixture, parseMixture } from "./notation.js";
import { DEFAULTS } from "./store.js";

/** @typedef {import("./store.js").State} State */

const asText = [String, String];
const asNumber = [String, Number];
const asFlag = [(flag) => (flag ? "yes" : "no"), (text) => text === "yes"];

/** For each part of the state: its name in the link, how it is written, and how it is read. */
const PARTS = {
  prompt: ["prompt", ...asText],
  mixture: ["mix", formatMixture, parseMixture],
  strength: ["strength", ...asNumber],
  topP: ["top_p", ...asNumber],
  temperature: ["temperature", ...asNumber],
  seed: ["seed", ...asNumber],
  maxTokens: ["max_tokens", ...asNumber],
  base: ["base", ...asFlag],
  tuned: ["tuned", ...asFlag],
  system: ["system", ...asText],
  tools: ["tools", ...asText],
  turns: ["turns", JSON.stringify, readTurns],
};

function readTurns(text) {
  try {
    const turns = JSON.parse(text);
    return Array.isArray(turns) ? turns.filter((turn) => typeof turn?.role === "string") : [];
  } catch {
    return [];
  }
}

/** The fragment of a state, without the `#`. The prompt and the mixture are always in it. @param {State} state */
export function toFragment(state) {
  const fragment = new URLSearchParams();
  for (const [part, [name, write]] of Object.entries(PARTS)) {
    const text = write(state[part]);
    if (part === "prompt" || part === "mixture" || text !== write(DEFAULTS[part])) fragment.set(name, text);
  }
  return fragment.toString();
}

/** The parts of the state that a fragment names. @param {string} hash with or without the `#` */
export function fromFragment(hash) {
  const fragment = new URLSearchParams(hash.replace(/^#/, ""));
  const patch = {};
  for (const [part, [name, , read]] of Object.entries(PARTS)) {
    if (fragment.has(name)) patch[part] = read(fragment.get(name));
  }
  return patch;
}

/** The address of the page with a state in it. @param {State} state */
export function linkTo(state) {
  const address = new URL(document.location.href);
  address.hash = toFragment(state);
  return address.href;
}
