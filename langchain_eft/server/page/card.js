/** The card that explains a token. There is one, which moves to the token under the pointer or the focus. */

import { element } from "./dom.js";
import { fixed, percent, signed } from "./numbers.js";
import { visible } from "./tokens.js";

/** @typedef {import("./answer.js").Answer} Answer */

const LINGER = 180; // milliseconds in which a pointer may cross from the token to the card

const card = element("div", {
  class: "card",
  id: "card",
  role: "group",
  "aria-label": "Why this word",
  hidden: true,
});
let anchor = null;
let closing = 0;

/**
 * Explain the tokens of a list.
 * @param {HTMLElement} list
 * @param {Answer} answer
 * @param {(position: number, alternative: Object) => void} onFork
 */
export function explainTokens(list, answer, onFork) {
  const show = (event) => {
    const position = [...list.children].indexOf(event.target);
    if (position >= 0)
      open(event.target, answer.tokens[position], (alternative) => onFork(position, alternative));
  };
  list.addEventListener("pointerover", show);
  list.addEventListener("focusin", show);
  list.addEventListener("click", (event) => list.contains(event.target) && event.target.focus());
  list.addEventListener("pointerleave", closeSoon);
  list.addEventListener("focusout", closeSoon);
  list.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === "ArrowDown") enterCard(event);
    if (event.key === "Escape") close();
  });
}

card.addEventListener("pointerenter", () => clearTimeout(closing));
card.addEventListener("pointerleave", closeSoon);
card.addEventListener("focusin", () => clearTimeout(closing));
card.addEventListener("focusout", closeSoon);
card.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" && event.key !== "ArrowUp") return;
  event.preventDefault();
  anchor.focus();
});
addEventListener("scroll", place, { capture: true, passive: true });
addEventListener("resize", place);

function open(token, { token: text, trace, alternatives }, onFork) {
  clearTimeout(closing);
  release();
  anchor = token;
  anchor.classList.add("explained");
  anchor.setAttribute("aria-describedby", card.id);
  card.replaceChildren(
    ...(trace
      ? explanation(text, trace, alternatives, onFork)
      : [element("p", {}, `You chose ${visible(text)} here.`)]),
  );
  card.hidden = false;
  token.parentElement.after(card); // so that Tab goes from the token to the card
  place();
}

function closeSoon() {
  clearTimeout(closing);
  closing = setTimeout(() => {
    const focused = document.activeElement;
    if (card.contains(focused) || card.matches(":hover")) return;
    if (focused !== anchor) close();
  }, LINGER);
}

/** Hide the card. */
export function close() {
  release();
  card.hidden = true;
}

function release() {
  anchor?.classList.remove("explained");
  anchor?.removeAttribute("aria-describedby");
}

function enterCard(event) {
  const first = card.hidden ? null : card.querySelector("button:not([disabled])");
  if (!first) return;
  event.preventDefault();
  first.focus();
}

/** Put the card below its token, or above it where there is no room. On a narrow page it lies at the bottom. */
function place() {
  if (card.hidden || !anchor?.isConnected) return;
  const token = anchor.getClientRects()[0] ?? anchor.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = card;
  const below = token.bottom + 4;
  const top = below + height > innerHeight && token.top - 4 - height > 0 ? token.top - 4 - height : below;
  card.style.setProperty(
    "--left",
    `${Math.max(8, Math.min(token.left, document.documentElement.clientWidth - width - 8))}px`,
  );
  card.style.setProperty("--top", `${top}px`);
}

function explanation(text, trace, alternatives, onFork) {
  return [
    element(
      "p",
      { class: "card-title" },
      element("code", {}, visible(text)),
      element("span", {}, percent(Math.exp(trace.logprob))),
    ),
    logprobTable(trace),
    ...(Object.keys(trace.behaviors).length ? [behaviorTable(trace.behaviors)] : []),
    ...(alternatives.length ? [alternativeList(text, alternatives, onFork)] : []),
  ];
}

function logprobTable(trace) {
  const rows = [
    ["mixture, p", trace.logprob, trace.from_base.total_variation, "by the behaviors"],
    ["base alone, L", trace.base, null],
  ];
  if (trace.small !== null)
    rows.push(["small models", trace.small, trace.from_small.total_variation, "by the base"]);
  return table(
    ["", "log p", "changed"],
    rows.map(([name, logprob, change, by]) => [name, fixed(logprob), change === null ? "" : bar(change, by)]),
  );
}

function behaviorTable(behaviors) {
  return table(
    ["behavior", "F", "S", "adds", "changed"],
    Object.entries(behaviors).map(([name, part]) => [
      `${fixed(part.weight).replace(/\.?0+$/, "")} ${name}`,
      fixed(part.tuned),
      fixed(part.reference),
      signed(part.contribution),
      bar(part.total_variation),
    ]),
  );
}

function table(head, rows) {
  const cell = (value, i) => element(i ? "td" : "th", i ? {} : { scope: "row" }, value);
  return element(
    "table",
    {},
    element(
      "thead",
      {},
      element(
        "tr",
        {},
        ...head.map((title) => (title ? element("th", { scope: "col" }, title) : element("td"))),
      ),
    ),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))),
  );
}

/** A change as a bar in the color of what caused it, and a number. @param {number} share @param {string} by */
function bar(share, by = "by the behaviors") {
  const node = element("span", { class: "share", title: by, "data-by": by });
  node.style.setProperty("--share", share);
  return element("span", {}, node, fixed(share));
}

function alternativeList(drawn, alternatives, onFork) {
  const buttons = alternatives.map((alternative) => {
    const share = percent(Math.exp(alternative.logprob));
    const same = alternative.token === drawn;
    const button = element(
      "button",
      {
        type: "button",
        class: "alternative",
        disabled: same,
        onclick: () => {
          onFork(alternative);
          close();
        },
      },
      element("code", {}, visible(alternative.token)),
      element("span", {}, same ? `${share}, drawn` : share),
    );
    button.style.setProperty("--share", Math.exp(alternative.logprob));
    return button;
  });
  return element(
    "div",
    { class: "alternatives", role: "group", "aria-label": "Fork at an alternative" },
    element("p", { class: "hint" }, "Choose another word to fork the answer here."),
    ...buttons,
  );
}
