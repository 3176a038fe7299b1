/** Mixtures as text, in the notation of the command line: `pirate=0.7,concise=0..1/32`. */

/** @typedef {import("./store.js").Weight} Weight */

const NUMBER = "[-+]?(?:\\d+\\.?\\d*|\\.\\d+)";
const RAMP = new RegExp(`^(${NUMBER}?)\\.\\.(${NUMBER})/(\\d+)$`);
const FIRST_TOKENS = new RegExp(`^(${NUMBER})/(\\d+)(?::(${NUMBER}))?$`);

const GATE = new RegExp(
  `^(${NUMBER})/(?:(confidence|entropy)-)?(below|above)(${NUMBER})(?::(${NUMBER}))?$`,
);

/** @param {Weight} weight */
export const isRamp = (weight) => typeof weight === "object" && "start" in weight;

/** @param {Weight} weight */
export const isSchedule = (weight) => typeof weight === "object";

/** Whether a weight depends on how sure the base is. @param {Weight} weight */
export const isGate = (weight) => typeof weight === "object" && ("below" in weight || "above" in weight);

/** The parts of a gate, with what it leaves out. @param {import("./store.js").Gate} gate */
function parts({ below, above, weight = 1, otherwise = 0, measure = "confidence" }) {
  return { side: below == null ? "above" : "below", threshold: below ?? above, weight, otherwise, measure };
}

/** Whether a weight is zero at every token. @param {Weight} weight */
export function isOff(weight) {
  if (isRamp(weight)) return weight.start === 0 && weight.end === 0;
  if (isGate(weight)) return parts(weight).weight === 0 && parts(weight).otherwise === 0;
  return isSchedule(weight) ? weight.weight === 0 && weight.then === 0 : weight === 0;
}

/** The behaviors that take part. @param {Record<string, Weight>} mixture */
export function active(mixture) {
  return Object.fromEntries(Object.entries(mixture).filter(([, weight]) => !isOff(weight)));
}

/** @param {Weight} weight */
export function formatWeight(weight) {
  if (isRamp(weight)) return `${weight.start}..${weight.end}/${weight.tokens}`;
  if (isGate(weight)) {
    const gate = parts(weight);
    const measure = gate.measure === "confidence" ? "" : `${gate.measure}-`;
    return `${gate.weight}/${measure}${gate.side}${gate.threshold}:${gate.otherwise}`;
  }
  return isSchedule(weight) ? `${weight.weight}/${weight.tokens}:${weight.then}` : String(weight);
}

/** A weight for people: `0.7`, or `1 → 0 in 16 tokens`. @param {Weight} weight */
export function describeWeight(weight) {
  if (isRamp(weight)) return `${weight.start} → ${weight.end} in ${weight.tokens} tokens`;
  if (isGate(weight)) {
    const gate = parts(weight);
    return `${gate.weight} where the base's ${gate.measure} is ${gate.side} ${gate.threshold}, else ${gate.otherwise}`;
  }
  return isSchedule(weight)
    ? `${weight.weight} for ${weight.tokens} tokens, then ${weight.then}`
    : String(weight);
}

/** @param {Record<string, Weight>} mixture */
export function formatMixture(mixture) {
  const entries = Object.entries(active(mixture)).map(([name, weight]) => `${name}=${formatWeight(weight)}`);
  return entries.join(",") || "none";
}

/** The weight that a text names, or null. @param {string} text @returns {Weight | null} */
export function parseWeight(text) {
  const ramp = RAMP.exec(text);
  if (ramp) return { start: Number(ramp[1]), end: Number(ramp[2]), tokens: Number(ramp[3]) };
  const first = FIRST_TOKENS.exec(text);
  if (first) return { weight: Number(first[1]), tokens: Number(first[2]), then: Number(first[3] ?? 0) };
  const gate = GATE.exec(text);
  if (gate) {
    const [, weight, measure, side, threshold, otherwise] = gate;
    return {
      [side]: Number(threshold),
      weight: Number(weight),
      otherwise: Number(otherwise ?? 0),
      measure: measure ?? "confidence",
    };
  }
  const number = Number(text);
  return text.trim() && Number.isFinite(number) ? number : null;
}

/** The mixture that a text names; parts that name none are left out. @param {string} text */
export function parseMixture(text) {
  const entries = text.split(",").map((entry) => {
    const at = entry.indexOf("=");
    return [entry.slice(0, at), parseWeight(entry.slice(at + 1))];
  });
  return Object.fromEntries(entries.filter(([name, weight]) => name && weight !== null));
}
