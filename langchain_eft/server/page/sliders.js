/** A slider, a number field and a schedule for each behavior. */

import { element, newId } from "./dom.js";
import { describeWeight, isSchedule } from "./notation.js";
import { scheduleEditor } from "./schedule.js";

/**
 * @param {HTMLElement} root
 * @param {import("./store.js").Store} store
 * @param {import("./family.js").Behavior[]} behaviors
 */
export function createSliders(root, store, behaviors) {
  if (!behaviors.length)
    root.append(
      element("p", { class: "hint" }, "This server has no behaviors to mix: add some with --behavior."),
    );
  root.append(...behaviors.map((behavior) => behaviorRow(store, behavior)));
}

function behaviorRow(store, { name, description, min, max, recommended }) {
  const id = newId("weight");
  const set = (weight) => store.setWeight(name, weight);
  const slider = element("input", {
    type: "range",
    id,
    min,
    max,
    step: 0.05,
    oninput: () => set(slider.valueAsNumber),
  });
  const number = element("input", {
    type: "number",
    step: 0.05,
    class: "number",
    "aria-label": `Weight of ${name} as a number`,
    oninput: () => Number.isNaN(number.valueAsNumber) || set(number.valueAsNumber),
  });
  const schedule = element("p", { class: "schedule-text" });
  const editor = scheduleEditor(name, max, set);
  const panel = element("div", { class: "schedule", id: `${id}-schedule`, hidden: true }, editor.element);
  const toggle = element(
    "button",
    {
      type: "button",
      class: "quiet",
      "aria-expanded": "false",
      "aria-controls": panel.id,
      "aria-label": `Schedule of ${name}`,
      onclick: () => open(panel.hidden),
    },
    "Schedule",
  );
  const open = (shown) => {
    panel.hidden = !shown;
    toggle.setAttribute("aria-expanded", String(shown));
  };
  const marks = element(
    "div",
    { class: "marks", "aria-hidden": "true" },
    ...[...new Set([0, recommended?.weight ?? 1, max])]
      .filter((mark) => mark >= min && mark <= max)
      .map((mark) => tick(mark, min, max)),
  );

  store.subscribe(({ mixture }) => {
    const weight = mixture[name] ?? 0;
    const scheduled = isSchedule(weight);
    slider.hidden = marks.hidden = number.hidden = scheduled;
    schedule.hidden = !scheduled;
    if (scheduled) schedule.textContent = describeWeight(weight);
    else {
      slider.value = String(weight);
      if (document.activeElement !== number) number.value = String(weight);
      slider.style.setProperty("--at", (Math.min(Math.max(weight, min), max) - min) / (max - min || 1));
    }
    editor.show(weight);
  });

  return element(
    "div",
    { class: "behavior", "data-param": `mixture.${name}` },
    element("div", { class: "behavior-head" }, element("label", { for: id }, name), toggle, number),
    schedule,
    ...(description ? [element("p", { class: "hint" }, description)] : []),
    slider,
    marks,
    panel,
  );
}

function tick(mark, min, max) {
  const node = element("span", {}, String(mark));
  node.style.setProperty("--at", (mark - min) / (max - min || 1));
  return node;
}
