/** What the server refuses, shown at the control that caused it. */

import { element, newId } from "./dom.js";

/**
 * The parameters that an error is about. The server names one, and its message may name others: in backticks,
 * as in `temperature=-1: ...`, or, about the mixture, the behaviors.
 * @param {{param: string | null, message: string}} error
 * @param {string[]} behaviors
 */
export function paramsOf({ param, message }, behaviors) {
  const written = [...message.matchAll(/`(\w+)`|^(\w+)=/g)].map(([, quoted, leading]) => quoted ?? leading);
  const params = [param?.split(/[.[]/)[0], ...written].filter(Boolean);
  const named = behaviors.filter((name) => message.includes(`'${name}'`) || param === `mixture.${name}`);
  return [...new Set(params)].flatMap((name) =>
    name === "mixture" && named.length ? named.map((behavior) => `mixture.${behavior}`) : name,
  );
}

/** @param {Error & {param?: string}} error @param {string[]} behaviors */
export function showProblem(error, behaviors) {
  for (const param of paramsOf(error, behaviors)) {
    const field = [...document.querySelectorAll("[data-param]")].find((node) => node.dataset.param === param);
    if (!field || [...field.querySelectorAll(".problem")].some((node) => node.textContent === error.message))
      continue;
    const id = newId("problem");
    field.append(element("p", { class: "problem", id, role: "alert" }, error.message));
    for (let folder = field.closest("details"); folder; folder = folder.parentElement.closest("details"))
      folder.open = true;
    for (const input of field.querySelectorAll(":scope input, :scope textarea")) {
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-errormessage", id);
    }
  }
}

/** Forget all problems of controls. */
export function clearProblems() {
  for (const field of document.querySelectorAll("[data-param]")) {
    for (const problem of field.querySelectorAll(":scope > .problem")) problem.remove();
    for (const input of field.querySelectorAll("[aria-invalid]")) {
      input.removeAttribute("aria-invalid");
      input.removeAttribute("aria-errormessage");
    }
  }
}
