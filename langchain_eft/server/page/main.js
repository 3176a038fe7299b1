/** The page: reads what the server serves, and connects the parts. */

import { getJson, onKeyNeeded, ServerError } from "./api.js";
import { close as closeCard } from "./card.js";
import { createColumns } from "./columns.js";
import { continued, createConversation } from "./conversation.js";
import { announce, byId, element } from "./dom.js";
import { createExamples, examplesFor, exampleState } from "./examples.js";
import { createExports } from "./export.js";
import { readFamily } from "./family.js";
import { askForKey } from "./key.js";
import { fromFragment, linkTo } from "./link.js";
import { createLive } from "./live.js";
import { active, describeWeight, isSchedule } from "./notation.js";
import { clearProblems, showProblem } from "./problems.js";
import { createSession } from "./session.js";
import { createSettings } from "./settings.js";
import { createSliders } from "./sliders.js";
import { createStarts } from "./starts.js";
import { createStore, DEFAULTS } from "./store.js";
import { createSweep } from "./sweep.js";
import { EXAMPLE_TOOL, readTools } from "./tools.js";

/** What the server serves, as soon as it has loaded its models. */
async function loadFamily() {
  for (;;) {
    try {
      return readFamily(await getJson("v1/models"));
    } catch (error) {
      if (!(error instanceof ServerError)) throw error;
      showNotice(error.status === 503 ? "The server is loading its models …" : error.message);
      await new Promise((resolve) => setTimeout(resolve, 1500));
    }
  }
}

function showNotice(text) {
  byId("columns").replaceChildren(element("p", { class: "about" }, text));
}

/** @param {import("./family.js").Family} family */
function open(family) {
  const names = family.behaviors.map(({ name }) => name);
  const examples = examplesFor(family);
  const start = { ...DEFAULTS, ...family.defaults };
  const linked = (hash) =>
    hash.includes("=") ? { ...start, ...fromFragment(hash) } : { ...start, ...exampleState(examples[0]) };
  const store = createStore(linked(location.hash));
  const live = createLive(byId("live"));
  const session = createSession({
    onCount: showRunning,
    onTokens: live.add,
    onEnd: ({ label, answer }) =>
      announce(`${label}: ${answer.status}, ${answer.tokens.length} tokens. ${answer.content}`),
    onError: (error) => showProblem(error, names),
  });
  const options = { model: family.model, start: session.start, onContinue };

  byId("columns").replaceChildren();
  byId("model-name").textContent = family.model;
  createStarts(byId("starts"), store, family);
  createSliders(byId("sliders"), store, family.behaviors);
  createSettings(byId("settings"), store);
  createConversation(byId("turns"), store);
  createExamples(byId("examples"), examples, (state) => {
    store.set(state);
    run();
  });
  createExports(byId("exports"), store, family.model);
  const columns = createColumns(byId("columns"), store, options);
  createSweep(byId("sweep-controls"), byId("strip"), store, { ...options, family, prepare });
  bindText("prompt");
  bindText("system");
  bindText("tools");
  bindFlag("show-base", "base");
  bindFlag("show-tuned", "tuned");
  store.subscribe(({ mixture, strength }) => (byId("formula").textContent = formula(mixture, strength)));
  store.subscribe(rememberInLink);
  live.follow(0);
  byId("run").disabled = false;

  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    run();
  });
  byId("stop").addEventListener("click", session.stop);
  byId("example-tool").addEventListener("click", () =>
    store.set({ tools: JSON.stringify([EXAMPLE_TOOL], null, 2) }),
  );
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("answers").focus();
  });
  addEventListener("hashchange", () => store.set(linked(location.hash)));

  function run() {
    if (!prepare()) return;
    announce("Answers are being written.");
    columns.run();
  }

  /** Stop what runs and forget old problems. Whether the state can be sent. */
  function prepare() {
    session.stop();
    closeCard();
    clearProblems();
    try {
      readTools(store.get().tools);
      return true;
    } catch (error) {
      showProblem({ param: "tools", message: error.message }, names);
      return false;
    }
  }

  function onContinue(messages) {
    session.stop();
    store.set(continued(messages));
    columns.clear();
    byId("strip").replaceChildren();
    (byId("turns").querySelector("li:last-child textarea") ?? byId("prompt")).focus();
  }

  function showRunning(count) {
    byId("stop").hidden = !count;
    live.follow(count);
  }

  function bindText(part) {
    const area = byId(part);
    area.addEventListener("input", () => store.set({ [part]: area.value }));
    store.subscribe((state) => {
      if (area.value !== state[part]) area.value = state[part];
    });
  }

  function bindFlag(id, part) {
    const box = byId(id);
    box.addEventListener("change", () => store.set({ [part]: box.checked }));
    store.subscribe((state) => (box.checked = state[part]));
  }
}

/** The mixture as a sum: `base + 0.7 pirate`. */
function formula(mixture, strength) {
  const base = strength === 1 ? "base" : `${strength} base`;
  const behaviors = Object.entries(active(mixture)).map(([name, weight]) =>
    isSchedule(weight) ? `${name} (${describeWeight(weight)})` : `${weight} ${name}`,
  );
  return [base, ...behaviors].join(" + ");
}

let remembering = 0;

/** Keep the address up to date, not at every step of a slider. */
function rememberInLink(state) {
  clearTimeout(remembering);
  remembering = setTimeout(() => history.replaceState(null, "", linkTo(state)), 250);
}

onKeyNeeded(askForKey);
open(await loadFamily());
