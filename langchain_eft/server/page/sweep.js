/** One behavior from 0 to 1.5, as a strip of answers that decode as one batch. */

import { answerView } from "./answer_view.js";
import { element } from "./dom.js";
import { chatBody } from "./request.js";

const WEIGHTS = [0, 0.25, 0.5, 0.75, 1, 1.5]; // a browser keeps six connections to a server open

/**
 * @param {HTMLElement} controls
 * @param {HTMLElement} strip
 * @param {import("./store.js").Store} store
 * @param {{family: import("./family.js").Family, start: Function, onContinue: Function, prepare: () => boolean}} options
 */
export function createSweep(controls, strip, store, { family, start, onContinue, prepare }) {
  const choice = element(
    "select",
    { id: "sweep-behavior" },
    ...family.behaviors.map(({ name }) => element("option", { value: name }, name)),
  );
  const button = element("button", { type: "button", id: "run-sweep", onclick: run }, "Sweep");
  controls.append(element("label", { for: "sweep-behavior" }, "Behavior"), choice, button);
  button.disabled = !family.behaviors.length;

  /** Offer the behavior that weighs most, until a visitor chooses another. */
  let chosen = false;
  choice.addEventListener("change", () => (chosen = true));
  store.subscribe(({ mixture }) => {
    const weights = Object.entries(mixture).filter(([, weight]) => typeof weight === "number");
    const [most] = weights.sort(([, a], [, b]) => b - a);
    if (!chosen && most) choice.value = most[0];
  });

  function run() {
    if (!prepare()) return;
    const name = choice.value;
    const { min, max } = family.behaviors.find((behavior) => behavior.name === name);
    const body = chatBody(family.model, store.get());
    const views = WEIGHTS.filter((weight) => weight >= min && weight <= max).map((weight) => {
      const mixture = { ...body.mixture, [name]: weight };
      const use = () => store.setWeight(name, weight);
      const action = element("button", { type: "button", class: "quiet", onclick: use }, "Use this weight");
      return [
        weight,
        answerView({ label: `${name} ${weight}`, body: { ...body, mixture }, start, onContinue, action }),
      ];
    });
    strip.replaceChildren(...views.map(([weight, view]) => step(name, weight, view)));
    for (const [, view] of views) start(view);
  }

  function step(name, weight, view) {
    const title = element("h3", {}, String(weight), element("span", {}, ` ${name}`));
    return element("section", { class: "step", "aria-label": `${name} ${weight}` }, title, view.element);
  }
}
