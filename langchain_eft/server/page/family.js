/**
 * What the server serves, read from `/v1/models`.
 *
 * @typedef {{weight: number, min: number, max: number}} Recommended What a taught behavior's verdict found.
 * @typedef {{name: string, description?: string, min: number, max: number, recommended?: Recommended}} Behavior
 * @typedef {Object} Family
 * @property {string} model The name of the model in requests.
 * @property {Behavior[]} behaviors
 * @property {{id: string, mixture: Record<string, import("./store.js").Weight>}[]} mixtures Models of the list.
 * @property {Partial<import("./store.js").State>} defaults
 */

const LARGEST = 2; // beyond it a slider would be too coarse; the number field goes on

/** @param {{data: Object[]}} list @returns {Family} */
export function readFamily(list) {
  const [model] = list.data;
  const eft = model.eft;
  return {
    model: model.id,
    behaviors: eft.behaviors.map(readBehavior),
    mixtures: list.data.map(({ id, eft: { mixture } }) => ({ id, mixture })),
    defaults: { mixture: eft.mixture, strength: eft.upscale_strength, topP: eft.upscale_top_p },
  };
}

/** Negative weights stay locked, whatever the server allows. A taught behavior's range ends its slider. */
function readBehavior({ name, min, max, recommended }) {
  const largest = Math.min(max ?? LARGEST, recommended?.max ?? LARGEST);
  return {
    name,
    description: recommended && describeRange(recommended),
    min: Math.max(min ?? 0, 0),
    max: largest,
    recommended,
  };
}

function describeRange({ weight, min, max }) {
  return `Measured: works from ${min} to ${max}, best at ${weight}.`;
}
