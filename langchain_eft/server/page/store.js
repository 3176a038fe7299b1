/**
 * The state of the page: everything that a visitor chooses, and nothing that a server answers.
 *
 * @typedef {{start: number, end: number, tokens: number}} Ramp
 * @typedef {{weight: number, tokens: number, then: number}} FirstTokens
 * @typedef {{below?: number, above?: number, weight?: number, otherwise?: number, measure?: string}} Gate
 * @typedef {number | Ramp | FirstTokens | Gate} Weight
 * @typedef {Object} State
 * @property {string} prompt
 * @property {string} system
 * @property {Object[]} turns Earlier messages, in the API's form.
 * @property {Record<string, Weight>} mixture
 * @property {number} strength How much the large model adds.
 * @property {number} topP Below 1, the large model re-weights only likely tokens.
 * @property {number} temperature
 * @property {number} seed
 * @property {number} maxTokens
 * @property {boolean} base Whether the base alone is shown.
 * @property {boolean} tuned Whether the tuned models alone are shown.
 * @property {string} tools As typed: JSON.
 */

/** @type {State} */
export const DEFAULTS = Object.freeze({
  prompt: "",
  system: "",
  turns: [],
  mixture: {},
  strength: 1,
  topP: 1,
  temperature: 0,
  seed: 1,
  maxTokens: 96,
  base: true,
  tuned: true,
  tools: "",
});

/** A state with subscribers, which are called after every change. @param {State} initial */
export function createStore(initial) {
  let state = initial;
  const subscribers = new Set();
  return {
    /** @returns {State} */
    get: () => state,
    /** @param {Partial<State>} patch */
    set(patch) {
      state = { ...state, ...patch };
      for (const subscriber of subscribers) subscriber(state);
    },
    /** Set one behavior's weight. @param {string} name @param {Weight} weight */
    setWeight(name, weight) {
      this.set({ mixture: { ...state.mixture, [name]: weight } });
    },
    /** Call a function now and after every change. @param {(state: State) => void} subscriber */
    subscribe(subscriber) {
      subscribers.add(subscriber);
      subscriber(state);
    },
  };
}
