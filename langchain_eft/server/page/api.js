/** Requests to the server, its streams and its errors. */

const KEY = "langchain-eft.key";

/** What the server refused, or why it did not answer. */
export class ServerError extends Error {
  /** @param {number} status @param {{message?: string, param?: string | null, code?: string | null}} error */
  constructor(status, error) {
    super(error.message || `The server answered with status ${status}.`);
    this.status = status;
    this.param = error.param ?? null;
  }
}

let askForKey = async () => null;
let asking = null;

/** Say how a visitor is asked for a key. @param {(reason: string) => Promise<string | null>} ask */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/** Whether a key is sent. */
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/**
 * Ask the server. The page may live below a path of a proxy, so addresses are relative.
 * @param {string} path
 * @param {{body?: Object, signal?: AbortSignal}} [options]
 * @returns {Promise<Response>} with a status of success
 * @throws {ServerError}
 */
export async function call(path, { body, signal } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = { ...(key && { Authorization: `Bearer ${key}` }) };
    if (body) headers["Content-Type"] = "application/json";
    const response = await send(path, {
      method: body ? "POST" : "GET",
      headers,
      body: body && JSON.stringify(body),
      signal,
    });
    if (response.ok) return response;
    const error = await readError(response);
    if (response.status !== 401 || !(await newKey(key, error))) throw error;
  }
}

async function send(path, init) {
  try {
    return await fetch(new URL(path, document.baseURI), init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, { message: "The server does not answer. Is it still running?" });
  }
}

async function readError(response) {
  try {
    return new ServerError(response.status, (await response.json()).error ?? {});
  } catch {
    return new ServerError(response.status, {});
  }
}

/** Ask for a key once, however many requests were refused. Whether there is a new one to try. */
async function newKey(refused, error) {
  if (sessionStorage.getItem(KEY) !== refused) return true;
  asking ??= askForKey(error.message).finally(() => (asking = null));
  const key = await asking;
  if (key) sessionStorage.setItem(KEY, key);
  return Boolean(key);
}

/** Ask for JSON. @param {string} path */
export async function getJson(path) {
  return (await call(path)).json();
}

/**
 * Stream a chat completion.
 * @param {Object} body
 * @param {AbortSignal} signal closes the connection, by which the server ends the answer
 * @yields {Object} chunks
 */
export async function* streamChat(body, signal) {
  const response = await call("v1/chat/completions", { body, signal });
  for await (const data of serverSentEvents(response.body.pipeThrough(new TextDecoderStream()))) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServerError(response.status, chunk.error);
    yield chunk;
  }
  throw new ServerError(0, { message: "The connection ended before the answer did." });
}

/** The data of each event. @param {ReadableStream<string>} stream */
export async function* serverSentEvents(stream) {
  let rest = "";
  for await (const text of readAll(stream)) {
    const blocks = (rest + text).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      if (data.length) yield data.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
    }
  }
}

async function* readAll(stream) {
  const reader = stream.getReader();
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
  } finally {
    reader.cancel().catch(() => {}); // an aborted stream has nothing left to cancel
  }
}
