/** The question for an API key. The key stays in this tab. */

import { element } from "./dom.js";

/** Ask for a key; null if the visitor gives none. @param {string} reason @returns {Promise<string | null>} */
export function askForKey(reason) {
  const input = element("input", { type: "password", id: "api-key", autocomplete: "off", required: true });
  const form = element(
    "form",
    {},
    element("h2", { id: "key-title" }, "This server asks for a key"),
    element("p", { class: "hint" }, reason),
    element("label", { for: "api-key" }, "API key"),
    input,
    element("p", { class: "hint" }, "It stays in this tab, until you close it."),
    element("div", { class: "bar" }, element("button", { type: "submit", class: "primary" }, "Use this key")),
  );
  const dialog = element("dialog", { "aria-labelledby": "key-title" }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      dialog.close(input.value.trim());
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue || null);
    });
  });
}
