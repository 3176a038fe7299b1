/**
 * The tokens of an answer, in color: the background shows what the behaviors changed of the base, the
 * underline what the base changed of the small mixture (total variation, 0 to 1).
 *
 * An answer is one stop of the Tab key; the arrow keys move between its tokens.
 */

import { element } from "./dom.js";

/** @typedef {import("./answer.js").Answer} Answer */
/** @typedef {import("./answer.js").Token} Token */

/** @param {string} label */
export function tokenList(label) {
  const list = element("div", {
    class: "tokens",
    role: "listbox",
    "aria-label": label,
    onkeydown: moveFocus,
  });
  return {
    element: list,
    /** Show the tokens that are new. @param {Answer} answer */
    update(answer) {
      for (let i = list.childElementCount; i < answer.tokens.length; i++) {
        list.append(...tokenNodes(answer.tokens[i], i < answer.given, i === 0));
      }
    },
  };
}

/** A token as an element. The space before a word stands outside of it and has no color. */
function tokenNodes(token, given, first) {
  const [, space, word] = /^(\s*)(.*)$/s.exec(token.text);
  const kind = ["token", !token.text && "hidden", given && "given"].filter(Boolean).join(" ");
  const label = word ? null : describe(token);
  const shown = word || space || `⟨${token.token}⟩`;
  const node = element(
    "span",
    { class: kind, role: "option", tabindex: first ? "0" : "-1", "aria-label": label },
    shown,
  );
  node.style.setProperty("--behaviors", token.trace?.from_base.total_variation ?? 0);
  node.style.setProperty("--base", token.trace?.from_small?.total_variation ?? 0);
  return word ? [space, node] : [node];
}

/** A token in words, for where its text cannot be read aloud. @param {Token} token */
function describe({ text, token }) {
  if (!text) return token.trim() || "part of a character";
  return text.includes("\n") ? "line break" : "space";
}

/** A token as it is written in explanations: spaces and line breaks can be seen. @param {string} token */
export const visible = (token) =>
  token.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";

const STEPS = { ArrowRight: 1, ArrowLeft: -1 };

function moveFocus(event) {
  const tokens = [...event.currentTarget.children];
  const at = tokens.indexOf(event.target);
  const ends = { Home: 0, End: tokens.length - 1 };
  const to = ends[event.key] ?? at + (STEPS[event.key] ?? 0);
  if (at < 0 || !tokens[to] || !(event.key in ends || event.key in STEPS)) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  tokens[to].tabIndex = 0;
  tokens[to].focus();
}
