/** The answers that are being decoded: they start together, and one button stops them all. */

import { addChunk } from "./answer.js";
import { streamChat } from "./api.js";
import { watched } from "./request.js";

/** @typedef {import("./answer_view.js").AnswerView} AnswerView */

/**
 * @param {Object} events
 * @param {(running: number) => void} events.onCount Called when an answer starts or ends.
 * @param {(tokens: number) => void} events.onTokens Called when tokens arrive.
 * @param {(view: AnswerView) => void} events.onEnd
 * @param {(error: Error) => void} events.onError
 */
export function createSession({ onCount, onTokens, onEnd, onError }) {
  /** @type {Set<AbortController>} */
  const running = new Set();

  /** Decode the answer of a view. @param {AnswerView} view */
  async function start(view) {
    const controller = new AbortController();
    running.add(controller);
    onCount(running.size);
    try {
      for await (const chunk of streamChat(watched(view.body), controller.signal)) {
        onTokens(addChunk(view.answer, chunk));
        view.update();
      }
      view.answer.status = "done";
    } catch (error) {
      if (controller.signal.aborted) view.answer.status = "stopped";
      else {
        view.fail(error);
        onError(error);
      }
    } finally {
      running.delete(controller);
      view.update();
      onEnd(view);
      onCount(running.size);
    }
  }

  return {
    start,
    /** End all answers. The server frees their memory. */
    stop() {
      for (const controller of running) controller.abort();
    },
  };
}
