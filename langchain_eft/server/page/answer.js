/**
 * One answer, which grows chunk by chunk.
 *
 * @typedef {Object} Token
 * @property {number} id
 * @property {string} token The token by itself.
 * @property {string} text What it adds to the text; empty for end tokens and parts of a character.
 * @property {Object | null} trace What each model contributed; null for a token that a visitor chose.
 * @property {{token: string, token_id: number, logprob: number}[]} alternatives
 *
 * @typedef {Object} Answer
 * @property {Token[]} tokens
 * @property {number} given How many of the first tokens were given, not drawn.
 * @property {string} content
 * @property {{id: string, name: string, args: string}[]} calls
 * @property {"waiting" | "running" | "done" | "stopped" | "failed"} status
 * @property {string | null} finishReason
 * @property {Object | null} eft The statistics of the server.
 * @property {Object | null} usage
 */

/** @param {Token[]} given The tokens that the answer begins with. @returns {Answer} */
export function newAnswer(given = []) {
  return {
    tokens: [...given],
    given: given.length,
    content: "",
    calls: [],
    status: "waiting",
    finishReason: null,
    eft: null,
    usage: null,
  };
}

/**
 * Add what a chunk of a stream brings.
 * @param {Answer} answer
 * @param {Object} chunk
 * @returns {number} new tokens
 */
export function addChunk(answer, chunk) {
  answer.usage = chunk.usage ?? answer.usage;
  const [choice] = chunk.choices;
  if (!choice) return 0;
  const tokens = readTokens(choice);
  answer.status = "running";
  answer.tokens.push(...tokens);
  answer.content += choice.delta.content ?? "";
  for (const part of choice.delta.tool_calls ?? []) addCall(answer.calls, part);
  answer.finishReason = choice.finish_reason ?? answer.finishReason;
  answer.eft = choice.eft ?? answer.eft;
  return tokens.length;
}

function readTokens({ trace = [], logprobs }) {
  const entries = logprobs?.content ?? [];
  return (trace ?? []).map((entry, i) => ({
    id: entry.id,
    token: entry.token,
    text: entry.text,
    trace: entry,
    alternatives: entries[i]?.top_logprobs ?? [],
  }));
}

function addCall(calls, { index, id, function: { name, arguments: args } = {} }) {
  const entry = (calls[index] ??= { id: "", name: "", args: "" });
  entry.id ||= id ?? "";
  entry.name += name ?? "";
  entry.args += args ?? "";
}

/** The tokens of an answer up to a position, and then another one: how a fork begins. */
export function forkTokens(answer, position, alternative) {
  const { token, token_id: id } = alternative;
  return [...answer.tokens.slice(0, position), { id, token, text: token, trace: null, alternatives: [] }];
}

/** The answer as a message of the conversation. @param {Answer} answer */
export function asMessage({ content, calls }) {
  if (!calls.length) return { role: "assistant", content };
  const toolCalls = calls.map(({ id, name, args }) => ({
    id,
    type: "function",
    function: { name, arguments: args },
  }));
  return { role: "assistant", content, tool_calls: toolCalls };
}
