/** The editor of a weight that changes along the answer: draw it, or type it. */

import { element, newId, svg } from "./dom.js";
import { fitSchedule } from "./fit.js";
import { isGate, isRamp, isSchedule } from "./notation.js";

/** @typedef {import("./store.js").Weight} Weight */

const TOKENS = 64; // of the drawing
const [WIDTH, HEIGHT] = [256, 80];
const KINDS = { constant: "constant", ramp: "ramp", first: "first tokens" };

/** The kind of a weight; a gate is not edited here, only replaced. @param {Weight} weight */
function kindOf(weight) {
  if (isGate(weight)) return "gate";
  return isRamp(weight) ? "ramp" : isSchedule(weight) ? "first" : "constant";
}

/** The same weight as another kind. @param {Weight} weight @param {string} kind @returns {Weight} */
function convert(weight, kind) {
  const [from, to, tokens] = ends(weight);
  if (kind === "ramp") return { start: from, end: isSchedule(weight) ? to : 0, tokens };
  if (kind === "first") return { weight: from, tokens, then: isSchedule(weight) ? to : 0 };
  return from;
}

/** First weight, last weight, and number of tokens between. @param {Weight} weight */
function ends(weight) {
  if (isRamp(weight)) return [weight.start, weight.end, weight.tokens];
  if (isGate(weight)) return [weight.weight ?? 1, weight.otherwise ?? 0, 16];
  return isSchedule(weight) ? [weight.weight, weight.then, weight.tokens] : [weight, weight, 16];
}

/**
 * @param {string} name of the behavior
 * @param {number} max
 * @param {(weight: Weight) => void} onChange
 */
export function scheduleEditor(name, max, onChange) {
  let current = 0;
  const group = newId("kind");
  const radios = Object.entries(KINDS).map(([kind, title]) => {
    const input = element("input", {
      type: "radio",
      name: group,
      value: kind,
      onchange: () => onChange(convert(current, kind)),
    });
    return { input, label: element("label", {}, input, ` ${title}`) };
  });
  const fields = [numberField("from", 0.05), numberField("to", 0.05), numberField("tokens", 1)];
  for (const { input } of fields) input.addEventListener("input", typed);
  const line = svg("polyline", { class: "plot-line", fill: "none" });
  const plot = svg(
    "svg",
    { class: "plot", viewBox: `0 -4 ${WIDTH} ${HEIGHT + 8}`, "aria-hidden": "true" },
    grid(max),
    line,
  );
  drawable(
    plot,
    max,
    (points) => drawLine(points),
    (points) => onChange(fitSchedule(points, TOKENS)),
  );
  const node = element(
    "div",
    { role: "group", "aria-label": `Schedule of ${name}` },
    element(
      "fieldset",
      { class: "choices" },
      element("legend", {}, `Weight of ${name} along the answer`),
      ...radios.map(({ label }) => label),
    ),
    plot,
    element("p", { class: "hint" }, `Draw over the first ${TOKENS} tokens, or type:`),
    element("div", { class: "schedule-fields" }, ...fields.map(({ label }) => label)),
  );

  function drawLine(points) {
    line.setAttribute("points", points.map(({ x, y }) => `${toX(x)},${toY(y, max)}`).join(" "));
  }

  function typed() {
    const [from, to, tokens] = fields.map(({ input }) => input.valueAsNumber);
    if ([from, to, tokens].some(Number.isNaN)) return;
    onChange(isRamp(current) ? { start: from, end: to, tokens } : { weight: from, tokens, then: to });
  }

  return {
    element: node,
    /** @param {Weight} weight */
    show(weight) {
      current = weight;
      const kind = kindOf(weight);
      for (const { input } of radios) input.checked = input.value === kind;
      ends(weight).forEach((value, i) => {
        const { input } = fields[i];
        input.disabled = kind === "constant" || kind === "gate";
        if (document.activeElement !== input) input.value = String(value);
      });
      drawLine(kind === "gate" ? [] : corners(weight));
    },
  };
}

function numberField(title, step) {
  const input = element("input", { type: "number", class: "number", min: step === 1 ? 1 : 0, step });
  return { input, label: element("label", {}, title, input) };
}

const toX = (token) => (Math.min(token, TOKENS) / TOKENS) * WIDTH;
const toY = (weight, max) => HEIGHT * (1 - Math.min(weight, max) / (max || 1));

/** Where the line of a weight bends. @param {Weight} weight @returns {import("./fit.js").Point[]} */
function corners(weight) {
  const [from, to, tokens] = ends(weight);
  const bend = isRamp(weight)
    ? [[tokens, to]]
    : [
        [tokens, from],
        [tokens, to],
      ];
  return [[0, from], ...bend, [TOKENS, to]].map(([x, y]) => ({ x, y }));
}

function grid(max) {
  const lines = [0, 1, 2]
    .filter((weight) => weight <= max)
    .map((weight) => svg("line", { x1: 0, x2: WIDTH, y1: toY(weight, max), y2: toY(weight, max) }));
  return svg("g", { class: "plot-grid" }, ...lines);
}

/**
 * Let a visitor draw.
 * @param {SVGElement} plot
 * @param {number} max
 * @param {(points: import("./fit.js").Point[]) => void} onMove Called with the stroke so far.
 * @param {(points: import("./fit.js").Point[]) => void} onEnd Called with the whole stroke.
 */
function drawable(plot, max, onMove, onEnd) {
  let points = null;
  const add = (event) => {
    const { left, top, width, height } = plot.getBoundingClientRect();
    const x = ((event.clientX - left) / width) * TOKENS;
    const y = (1 - (((event.clientY - top) / height) * (HEIGHT + 8) - 4) / HEIGHT) * max;
    points.push({ x: Math.min(Math.max(x, 0), TOKENS), y: Math.min(Math.max(y, 0), max) });
    onMove(points);
  };
  plot.addEventListener("pointerdown", (event) => {
    points = [];
    plot.setPointerCapture(event.pointerId);
    add(event);
  });
  plot.addEventListener("pointermove", (event) => points && add(event));
  for (const end of ["pointerup", "pointercancel"]) {
    plot.addEventListener(end, () => {
      if (points) onEnd(points);
      points = null;
    });
  }
}
