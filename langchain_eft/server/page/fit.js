/** From a line drawn by hand to the schedule that is nearest to it. */

/** @typedef {{x: number, y: number}} Point token position and weight */

/**
 * The ramp or the first-tokens schedule with the smallest squared distance from a line.
 * @param {Point[]} points in any order, at least one
 * @param {number} longest The last token that a schedule may change at.
 * @returns {import("./store.js").Weight}
 */
export function fitSchedule(points, longest) {
  const candidates = [];
  for (let tokens = 1; tokens <= longest; tokens++) {
    candidates.push(fitRamp(points, tokens), fitFirstTokens(points, tokens));
  }
  const best = candidates.reduce((a, b) => (b.error < a.error - 1e-9 ? b : a));
  return best.weight;
}

/** Least squares over start and end; a token counts for the end by `share` and for the start by the rest. */
function fitRamp(points, tokens) {
  const shares = points.map(({ x }) => Math.min(Math.max(x, 0) / tokens, 1));
  const { start, end } = leastSquares(
    shares,
    points.map(({ y }) => y),
  );
  const weight = { start: round(start), end: round(end), tokens };
  return {
    weight,
    error: squaredError(points, (_, i) => weight.start * (1 - shares[i]) + weight.end * shares[i]),
  };
}

function leastSquares(shares, ys) {
  let [aa, ab, bb, ay, by] = [1e-9, 0, 1e-9, 0, 0]; // the small numbers let a single point have a solution
  shares.forEach((b, i) => {
    const a = 1 - b;
    aa += a * a;
    ab += a * b;
    bb += b * b;
    ay += a * ys[i];
    by += b * ys[i];
  });
  const determinant = aa * bb - ab * ab;
  return { start: (ay * bb - by * ab) / determinant, end: (by * aa - ay * ab) / determinant };
}

function fitFirstTokens(points, tokens) {
  const first = mean(points.filter(({ x }) => x < tokens));
  const rest = mean(points.filter(({ x }) => x >= tokens));
  const weight = { weight: round(first ?? rest), tokens, then: round(rest ?? first) };
  return { weight, error: squaredError(points, ({ x }) => (x < tokens ? weight.weight : weight.then)) };
}

const mean = (points) => (points.length ? points.reduce((sum, { y }) => sum + y, 0) / points.length : null);

const squaredError = (points, at) => points.reduce((sum, point, i) => sum + (point.y - at(point, i)) ** 2, 0);

/** To the step of the number fields, and never below 0. */
const round = (value) => Math.max(0, Math.round(value * 20) / 20);
