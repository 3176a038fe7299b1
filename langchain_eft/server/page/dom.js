/** Elements. Text always becomes a text node, so that nothing a model writes can become markup. */

/**
 * Make an element.
 * @param {string} tag
 * @param {Record<string, unknown>} [attributes] `onclick` and the like are listeners; false leaves one out.
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an element of an SVG picture; the arguments are those of `element`. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/** The element with an id of index.html. @param {string} id */
export const byId = (id) => document.getElementById(id);

/** Make an id for a label or description that does not occur yet. @param {string} stem */
export function newId(stem) {
  return `${stem}-${(counter += 1)}`;
}
let counter = 0;

/** Say something to screen readers. @param {string} text */
export function announce(text) {
  byId("status").textContent = text;
}
