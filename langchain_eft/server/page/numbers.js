/** Numbers as text. */

/** A number with two decimals and a real minus sign. @param {number} value */
export const fixed = (value) => value.toFixed(2).replace("-", "−");

/** A number with two decimals and its sign. @param {number} value */
export const signed = (value) => (value >= 0 ? "+" : "") + fixed(value);

/** A share as a percentage. @param {number} share 0 to 1 */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}
