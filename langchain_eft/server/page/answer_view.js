/** One answer on the page: its tokens, its tool calls, its figures, and what to do with it. */

import { asMessage, forkTokens, newAnswer } from "./answer.js";
import { explainTokens } from "./card.js";
import { element } from "./dom.js";
import { percent } from "./numbers.js";
import { begunWith } from "./request.js";
import { tokenList, visible } from "./tokens.js";

/** @typedef {import("./answer.js").Answer} Answer */

/**
 * @typedef {Object} AnswerView
 * @property {HTMLElement} element
 * @property {Answer} answer
 * @property {Object} body The request.
 * @property {string} label
 * @property {() => void} update Show what has changed.
 * @property {(error: Error) => void} fail Show why there is no answer, or no more of it.
 */

/**
 * @param {Object} options
 * @param {string} options.label Which answer it is, for screen readers.
 * @param {Object} options.body The request.
 * @param {import("./answer.js").Token[]} [options.given] Tokens that the answer begins with.
 * @param {(view: AnswerView) => void} options.start Decodes a fork.
 * @param {(messages: Object[]) => void} options.onContinue Makes an answer part of the conversation.
 * @param {Node | string} [options.action] One more thing to do with the answer.
 * @returns {AnswerView}
 */
export function answerView({ label, body, given, start, onContinue, action = "" }) {
  const answer = newAnswer(given);
  const tokens = tokenList(label);
  const calls = element("div", { class: "calls" });
  const problem = element("p", { class: "problem", hidden: true });
  const facts = element("p", { class: "facts" });
  const next = element(
    "button",
    {
      type: "button",
      class: "quiet",
      hidden: true,
      onclick: () => onContinue([...body.messages, asMessage(answer)]),
    },
    "Continue from here",
  );
  const actions = element("div", { class: "actions" }, next, action);
  const forks = element("div", { class: "forks" });
  const view = {
    element: element("div", { class: "answer" }, tokens.element, calls, problem, facts, actions, forks),
    answer,
    body,
    label,
    update,
    fail,
  };

  explainTokens(tokens.element, answer, (position, alternative) => {
    const beginning = forkTokens(answer, position, alternative);
    const fork = answerView({
      label: `Fork of ${label}`,
      body: begunWith(
        body,
        beginning.map((token) => token.id),
      ),
      given: beginning,
      start,
      onContinue,
    });
    forks.prepend(forkElement(fork, answer.tokens[position], alternative));
    start(fork);
  });

  function update() {
    tokens.update(answer);
    calls.replaceChildren(...answer.calls.map(callElement));
    view.element.dataset.status = answer.status;
    facts.textContent = describe(answer);
    next.hidden = answer.status !== "done";
  }

  function fail(error) {
    answer.status = "failed";
    problem.textContent = error.message;
    problem.hidden = false;
    update();
  }

  update();
  return view;
}

function forkElement(fork, { token }, alternative) {
  const node = element("section", { class: "fork", "aria-label": fork.label });
  const remove = element(
    "button",
    { type: "button", class: "quiet close", "aria-label": "Remove this fork", onclick: () => node.remove() },
    "×",
  );
  const title = element(
    "p",
    { class: "fork-title" },
    "Fork: ",
    element("code", {}, visible(token)),
    " → ",
    element("code", {}, visible(alternative.token)),
    remove,
  );
  node.append(title, fork.element);
  return node;
}

function callElement({ name, args }) {
  return element(
    "div",
    { class: "call" },
    element("p", {}, "calls ", element("strong", {}, name)),
    element("pre", {}, pretty(args)),
  );
}

/** Arguments with line breaks, once they are complete. @param {string} json */
function pretty(json) {
  try {
    return JSON.stringify(JSON.parse(json), null, 2);
  } catch {
    return json;
  }
}

const STATUS = { waiting: "waiting …", stopped: "stopped", failed: "" };

/** The figures of an answer in a line. @param {Answer} answer */
function describe({ tokens, given, status, finishReason, eft, usage }) {
  const drawn = tokens.length - given;
  if (status === "running") return `${drawn} tokens …`;
  if (status !== "done") return [drawn ? `${drawn} tokens` : "", STATUS[status]].filter(Boolean).join(" · ");
  const parts = [finishReason === "length" ? `cut at ${tokens.length} tokens` : `${drawn} tokens`];
  if (eft) parts.push(`${eft.tokens_per_second.toFixed(0)} tokens/s`);
  if (eft?.drafted) parts.push(`${percent(eft.acceptance_rate)} of drafts kept`);
  const cached = usage?.prompt_tokens_details?.cached_tokens;
  if (cached) parts.push(`${cached} of ${usage.prompt_tokens} cached`);
  return parts.join(" · ");
}
