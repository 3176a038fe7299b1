/** Tools as pasted by a visitor: a list of schemas, or one schema. */

export const EXAMPLE_TOOL = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Get the weather at a location.",
    parameters: {
      type: "object",
      properties: { location: { type: "string" } },
      required: ["location"],
    },
  },
};

/**
 * The tools of a text, in the API's form.
 * @param {string} text
 * @returns {Object[]}
 * @throws {SyntaxError} The text is not JSON.
 */
export function readTools(text) {
  if (!text.trim()) return [];
  const value = parse(text);
  return (Array.isArray(value) ? value : [value]).map(asFunction);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new SyntaxError(`The tools are not JSON: ${error.message}`);
  }
}

/** A bare schema with a name is wrapped as the API wants it. */
function asFunction(tool) {
  return tool && typeof tool === "object" && "name" in tool ? { type: "function", function: tool } : tool;
}
