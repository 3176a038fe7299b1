/** The same prompt and seed in up to three columns: the base alone, the tuned models alone, the mixture. */

import { answerView } from "./answer_view.js";
import { element } from "./dom.js";
import { formatMixture } from "./notation.js";
import { chatBody } from "./request.js";

/** @typedef {import("./store.js").State} State */

/** Each column: its title, what it shows, whether it is shown, and how its request differs. */
const COLUMNS = [
  {
    kind: "base",
    title: "Base alone",
    about: "What the large model says by itself. It has the knowledge, and none of the behaviors.",
    shown: (state) => state.base,
    change: { mixture: {}, upscale_strength: 1, upscale_top_p: 1 },
  },
  {
    kind: "tuned",
    title: "Tuned alone",
    about: "What the small trained models say by themselves. They have the behaviors, and know less.",
    shown: (state) => state.tuned,
    change: { upscale_strength: 0, upscale_top_p: 1 },
  },
  {
    kind: "mixture",
    title: "The mixture",
    about: "Both at once: the large model’s knowledge in the behaviors’ voice.",
    shown: () => true,
    change: {},
  },
];

/**
 * @param {HTMLElement} root
 * @param {import("./store.js").Store} store
 * @param {{model: string, start: Function, onContinue: Function}} options
 */
export function createColumns(root, store, { model, start, onContinue }) {
  const columns = COLUMNS.map((column) => {
    const slot = element("div", { class: "slot" }, element("p", { class: "about" }, column.about));
    const title = element("h2", {}, column.title);
    const node = element(
      "section",
      { class: "column", "data-kind": column.kind, "aria-label": column.title },
      title,
      slot,
    );
    return { ...column, slot, node };
  });
  root.append(...columns.map(({ node }) => node));
  store.subscribe((state) => {
    for (const { node, shown } of columns) node.hidden = !shown(state);
  });

  return {
    /** Answer the prompt in every column that is shown. */
    run() {
      const state = store.get();
      for (const { kind, title, slot, change } of columns.filter(({ shown }) => shown(state))) {
        if (kind === "tuned" && formatMixture(state.mixture) === "none") {
          slot.replaceChildren(
            element("p", { class: "about" }, "Give a behavior a weight above 0 to see it alone."),
          );
          continue;
        }
        const body = { ...chatBody(model, state), ...change };
        const view = answerView({ label: title, body, start, onContinue });
        slot.replaceChildren(view.element);
        start(view);
      }
    },
    /** Forget the answers. */
    clear() {
      for (const { slot, about } of columns) slot.replaceChildren(element("p", { class: "about" }, about));
    },
  };
}
