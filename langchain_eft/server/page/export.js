/** The current mixture for elsewhere: Python, curl, a preset, a model's name, a link. */

import { hasKey } from "./api.js";
import { element } from "./dom.js";
import { linkTo } from "./link.js";
import { active, formatMixture, isSchedule } from "./notation.js";
import { chatBody } from "./request.js";

/** @typedef {import("./store.js").State} State */

const KEY_VARIABLE = "LANGCHAIN_EFT_API_KEY";

/** Parameters that the `openai` client knows by name; the others go into `extra_body`. */
const KNOWN = ["model", "messages", "tools", "temperature", "seed", "max_tokens"];

const apiAddress = () => new URL("v1", document.baseURI).href;

/** A JSON value as a Python expression. */
export function pythonLiteral(value, indent = "") {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  const entries = Array.isArray(value)
    ? value.map((item) => pythonLiteral(item, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${pythonLiteral(item, inner)}`);
  const [open, close] = Array.isArray(value) ? "[]" : "{}";
  const short = `${open}${entries.join(", ")}${close}`;
  if (short.length < 80 && !short.includes("\n")) return short;
  return `${open}\n${entries.map((entry) => `${inner}${entry},\n`).join("")}${indent}${close}`;
}

/** @param {Object} body */
export function asPython(body) {
  const known = Object.fromEntries(Object.entries(body).filter(([name]) => KNOWN.includes(name)));
  const others = Object.fromEntries(Object.entries(body).filter(([name]) => !KNOWN.includes(name)));
  const args = Object.entries({ ...known, extra_body: others }).map(
    ([name, value]) => `    ${name}=${pythonLiteral(value, "    ")},`,
  );
  const key = hasKey() ? `os.environ["${KEY_VARIABLE}"]` : '"none"';
  return [
    ...(hasKey() ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${JSON.stringify(apiAddress())}, api_key=${key})`,
    "answer = client.chat.completions.create(",
    ...args,
    ")",
    "print(answer.choices[0].message.content)",
    "",
  ].join("\n");
}

/** A text in a shell's single quotes. @param {string} text */
export const shellQuoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** @param {Object} body */
export function asCurl(body) {
  const key = hasKey() ? [`  -H "Authorization: Bearer $${KEY_VARIABLE}"`] : [];
  return (
    [
      `curl -sS ${shellQuoted(`${apiAddress()}/chat/completions`)}`,
      "  -H 'Content-Type: application/json'",
      ...key,
      `  -d ${shellQuoted(JSON.stringify(body, null, 2))}`,
    ].join(" \\\n") + "\n"
  );
}

/** The fields of an `EFTChatModel`. @param {string} model @param {State} state */
export function asPreset(model, state) {
  const fields = {
    model,
    mixture: active(state.mixture),
    upscale_strength: state.strength,
    upscale_top_p: state.topP,
    temperature: state.temperature,
    seed: state.seed,
    max_tokens: state.maxTokens,
  };
  return `${JSON.stringify(fields, null, 2)}\n`;
}

/** A named mixture for the file that `langchain-eft serve --policy` reads. @param {State} state */
export function asPolicy(state) {
  const value = (weight) =>
    isSchedule(weight)
      ? `{ ${Object.entries(weight)
          .map(([name, part]) => `${name} = ${JSON.stringify(part)}`)
          .join(", ")} }`
      : weight;
  const lines = Object.entries(active(state.mixture)).map(
    ([name, weight]) => `${JSON.stringify(name)} = ${value(weight)}`,
  );
  return `${["[mixtures.my-mixture]", ...lines].join("\n")}\n`;
}

/** Each way out: its name, its text, and a word on its use. */
function ways(model, state) {
  return {
    Python: [
      () => asPython(chatBody(model, state)),
      "With the openai package. LangChain’s ChatOpenAI takes the same base_url and extra_body.",
    ],
    curl: [() => asCurl(chatBody(model, state)), "For a shell."],
    Preset: [
      () => asPreset(model, state),
      'Save it as preset.json. In Python, EFTChatModel(**json.load(open("preset.json"))) is this mixture without a server.',
    ],
    "Server file": [
      () => asPolicy(state),
      "For langchain-eft serve --policy FILE: every client then finds this mixture among the models.",
    ],
    "Model name": [
      () => `${model}:${formatMixture(state.mixture)}\n`,
      "For clients that can only name a model.",
    ],
    Link: [
      () => `${linkTo(state)}\n`,
      "Opens this page as it is now. The state is in the part after #, which no server sees.",
    ],
  };
}

/**
 * @param {HTMLElement} root
 * @param {import("./store.js").Store} store
 * @param {string} model
 */
export function createExports(root, store, model) {
  const title = element("h2", { id: "export-dialog-title" });
  const text = element("pre", { tabindex: "0", "aria-labelledby": "export-dialog-title" });
  const hint = element("p", { class: "hint" });
  const copied = element("p", { class: "hint", role: "status" });
  const dialog = element(
    "dialog",
    { "aria-labelledby": "export-dialog-title" },
    title,
    hint,
    text,
    element(
      "div",
      { class: "bar" },
      element("button", { type: "button", class: "primary", onclick: copy }, "Copy"),
      element("button", { type: "button", onclick: () => dialog.close() }, "Close"),
      copied,
    ),
  );
  document.body.append(dialog);

  async function copy() {
    try {
      await navigator.clipboard.writeText(text.textContent);
      copied.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(text); // no clipboard without https, or without leave
      copied.textContent = "Selected: copy it with your keyboard.";
    }
  }

  function show(name) {
    const [write, use] = ways(model, store.get())[name];
    [title.textContent, hint.textContent, copied.textContent] = [name, use, ""];
    text.textContent = textOrProblem(write);
    dialog.showModal();
  }

  root.append(
    ...Object.keys(ways(model, store.get())).map((name) =>
      element("button", { type: "button", onclick: () => show(name) }, name),
    ),
  );
}

/** What a function writes, or why it cannot. @param {() => string} write */
function textOrProblem(write) {
  try {
    return write();
  } catch (error) {
    return error.message;
  }
}
