/** Earlier turns of the conversation. */

import { element, newId } from "./dom.js";

const SPEAKERS = { user: "You", assistant: "Model", tool: "Result of the tool" };

/**
 * @param {HTMLElement} root
 * @param {import("./store.js").Store} store
 */
export function createConversation(root, store) {
  let shown = null;
  store.subscribe(({ turns }) => {
    if (turns === shown) return;
    shown = turns;
    root.replaceChildren(...turns.map((turn, i) => turnElement(store, turn, i)));
  });
}

function turnElement(store, turn, position) {
  const node = element(
    "li",
    { "data-role": turn.role },
    element("p", { class: "speaker" }, SPEAKERS[turn.role] ?? turn.role),
  );
  if (turn.role === "tool") node.append(...resultField(store, turn, position));
  else if (turn.content) node.append(element("p", { class: "said" }, turn.content));
  for (const call of turn.tool_calls ?? []) {
    node.append(
      element(
        "p",
        { class: "said" },
        element("code", {}, `${call.function.name}(${call.function.arguments})`),
      ),
    );
  }
  if (turn.role === "user") {
    const edit = () => store.set({ turns: store.get().turns.slice(0, position), prompt: turn.content });
    node.append(element("button", { type: "button", class: "quiet", onclick: edit }, "Edit from here"));
  }
  return node;
}

/** A tool's result is typed by the visitor. It changes the turn in place, so that the field keeps the focus. */
function resultField(store, turn, position) {
  const id = newId("result");
  const area = element("textarea", {
    id,
    rows: 2,
    class: "code",
    oninput: () => {
      turn.content = area.value;
      store.set({});
    },
  });
  area.value = turn.content;
  return [element("label", { for: id, class: "visually-hidden" }, `Result of tool call ${position}`), area];
}

/**
 * The state after an answer has become part of the conversation.
 * @param {Object[]} messages with the answer as the last one
 */
export function continued(messages) {
  const turns = messages.filter(({ role }) => role !== "system");
  const results = (turns.at(-1).tool_calls ?? []).map(({ id }) => ({
    role: "tool",
    tool_call_id: id,
    content: "",
  }));
  return { turns: [...turns, ...results], prompt: "" };
}
