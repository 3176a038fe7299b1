/** Bodies of chat completions. */

import { active } from "./notation.js";
import { readTools } from "./tools.js";

/** @typedef {import("./store.js").State} State */

/** Parts of a body that only the page needs. */
const SEEN = {
  stream: true,
  stream_options: { include_usage: true },
  trace: true,
  logprobs: true,
  top_logprobs: 5,
};

/**
 * The body by which any client gets the answer of the mixture.
 * @param {string} model
 * @param {State} state
 */
export function chatBody(model, state) {
  const tools = readTools(state.tools);
  return {
    model,
    messages: [
      ...(state.system ? [{ role: "system", content: state.system }] : []),
      ...state.turns,
      ...(state.prompt ? [{ role: "user", content: state.prompt }] : []),
    ],
    ...(tools.length && { tools }),
    temperature: state.temperature,
    seed: state.seed,
    max_tokens: state.maxTokens,
    mixture: active(state.mixture),
    upscale_strength: state.strength,
    upscale_top_p: state.topP,
  };
}

/** The same body with what the page needs: a stream, traces and alternatives. @param {Object} body */
export const watched = (body) => ({ ...body, ...SEEN });

/** The same answer with other first tokens. @param {Object} body @param {number[]} ids */
export const begunWith = (body, ids) => ({ ...body, answer_prefix: ids });
