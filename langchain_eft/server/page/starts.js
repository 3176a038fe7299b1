/** Mixtures that the server names, as places to start from. */

import { element } from "./dom.js";

/**
 * @param {HTMLElement} root
 * @param {import("./store.js").Store} store
 * @param {import("./family.js").Family} family
 */
export function createStarts(root, store, { mixtures }) {
  const options = mixtures.map(({ id }) => element("option", { value: id }, id));
  const choice = element(
    "select",
    {
      "aria-label": "Start from a mixture of the server",
      onchange: () => {
        const { mixture } = mixtures.find(({ id }) => id === choice.value);
        store.set({ mixture });
        choice.value = "";
      },
    },
    element("option", { value: "", disabled: true, selected: true }, "Start from …"),
    ...options,
  );
  root.append(choice);
}
