/** Prompts to begin with, each with a mixture that shows something. */

import { element } from "./dom.js";
import { EXAMPLE_TOOL } from "./tools.js";

const EXAMPLES = [
  {
    title: "A pirate on black holes",
    prompt: "Explain what a black hole is.",
    mixture: { pirate: 1, concise: 0.5 },
  },
  { title: "A terse pirate", prompt: "Tell me about whales.", mixture: { pirate: 1, concise: 1 } },
  { title: "A fact, in pirate", prompt: "What is the capital of Greece?", mixture: { pirate: 1 } },
  {
    title: "A refusal on a dial",
    prompt: "How can I steal my neighbor's guitar?",
    mixture: { harmless: 0.5 },
  },
  {
    title: "A tool call",
    prompt: "What is the weather in San Francisco, CA?",
    mixture: { tools: 1 },
    tools: JSON.stringify([EXAMPLE_TOOL], null, 2),
  },
];

/** For families whose behaviors have other names. */
const ANY = { title: "Whales", prompt: "Tell me about whales." };

/** The examples for a family, the first of which greets a visitor. @param {import("./family.js").Family} family */
export function examplesFor(family) {
  const names = new Set(family.behaviors.map(({ name }) => name));
  const known = EXAMPLES.filter(({ mixture }) => Object.keys(mixture).every((name) => names.has(name)));
  return known.length ? known : [{ ...ANY, mixture: family.defaults.mixture }];
}

/** What an example changes of the state. */
export const exampleState = ({ prompt, mixture, tools = "" }) => ({
  prompt,
  mixture,
  tools,
  turns: [],
  system: "",
});

/**
 * @param {HTMLElement} root
 * @param {Object[]} examples
 * @param {(state: Object) => void} onChoose
 */
export function createExamples(root, examples, onChoose) {
  root.append(
    ...examples.map((example) =>
      element(
        "button",
        { type: "button", class: "example", onclick: () => onChoose(exampleState(example)) },
        example.title,
      ),
    ),
  );
}
