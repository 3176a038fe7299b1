/** Live figures: tokens per second as they arrive here, and what the server counts in `/metrics`. */

import { call } from "./api.js";
import { element } from "./dom.js";
import { percent } from "./numbers.js";

const INTERVAL = 1000; // milliseconds between two looks at the metrics
const WINDOW = 2000; // milliseconds over which tokens are counted

/** @param {HTMLElement} root */
export function createLive(root) {
  const arrivals = []; // [time, tokens]
  let timer = 0;
  let busy = false;

  async function look() {
    if (busy) return;
    busy = true;
    try {
      show(root, {
        ...figures(readMetrics(await (await call("metrics")).text())),
        "tokens/s": rate(arrivals),
      });
    } catch {
      show(root, { "tokens/s": rate(arrivals) }); // an operator may keep the metrics to himself
    } finally {
      busy = false;
    }
  }

  return {
    /** @param {number} tokens that arrived now */
    add: (tokens) => arrivals.push([performance.now(), tokens]),
    /** Look while answers are being decoded, and once more at the end. @param {number} running */
    follow(running) {
      clearInterval(timer);
      if (running) timer = setInterval(look, INTERVAL);
      look();
    },
  };
}

function rate(arrivals) {
  const now = performance.now();
  while (arrivals.length && arrivals[0][0] < now - WINDOW) arrivals.shift();
  const tokens = arrivals.reduce((sum, [, count]) => sum + count, 0);
  return tokens ? (tokens / Math.max((now - arrivals[0][0]) / 1000, 0.1)).toFixed(0) : "–";
}

/** The sum of each metric over its labels. @param {string} text @returns {Record<string, number>} */
export function readMetrics(text) {
  const sums = {};
  for (const line of text.split("\n")) {
    const match = /^([\w:]+)(?:\{.*\})? (\S+)/.exec(line);
    if (match) sums[match[1]] = (sums[match[1]] ?? 0) + Number(match[2]);
  }
  return sums;
}

/** The figures that the metrics allow. */
function figures(metrics) {
  const metric = (name) => Object.entries(metrics).find(([key]) => key.endsWith(`:${name}`))?.[1];
  const share = (part, whole) => (metric(whole) ? percent(metric(part) / metric(whole)) : "–");
  return {
    running: metric("num_requests_running") ?? "–",
    waiting: metric("num_requests_waiting") ?? "–",
    "drafts accepted": share("spec_decode_num_accepted_tokens_total", "spec_decode_num_draft_tokens_total"),
    "prompt cached": share("prefix_cache_hits_total", "prefix_cache_queries_total"),
  };
}

function show(root, values) {
  root.replaceChildren(
    ...Object.entries(values).map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, String(value))),
    ),
  );
}
