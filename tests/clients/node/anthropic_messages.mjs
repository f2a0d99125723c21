// Anthropic's SDK for Node, messages.

import { KEY, PIXEL, SCHEMA, describe, failure, load, parameters } from "./target.mjs";

const { Anthropic } = load("@anthropic-ai/sdk");

const tool = (name, parameter) => ({ name, input_schema: parameters(parameter) });
const TOOLS = [tool("weather", "city"), tool("clock", "zone")];
const FORM = { format: { type: "json_schema", schema: SCHEMA } };

export function scenariosOf(url, model) {
  const { messages } = new Anthropic({ baseURL: url, apiKey: KEY, maxRetries: 0 });
  const says = (scenario, others) => ({
    model,
    max_tokens: 100,
    messages: [{ role: "user", content: `scenario:${scenario}` }],
    ...others,
  });

  async function raw() {
    const kinds = [];
    for await (const event of await messages.create(says("streamed", { stream: true }))) {
      if (event.type !== "ping") kinds.push(event.type);
    }
    return kinds;
  }

  const helper = async (scenario, others) =>
    message(await messages.stream(says(scenario, others)).finalMessage());

  function image() {
    const source = { type: "base64", media_type: "image/png", data: PIXEL };
    const content = [
      { type: "text", text: "scenario:image" },
      { type: "image", source },
    ];
    return messages.create({ model, max_tokens: 100, messages: [{ role: "user", content }] });
  }

  async function texts(scenario, isEnough) {
    let text = "";
    try {
      for await (const event of await messages.create(says(scenario, { stream: true }))) {
        if (event.type === "content_block_delta") text += event.delta.text;
        if (isEnough(text)) break;
      }
    } catch (error) {
      return { text, ...describe(error) };
    }
    return { text };
  }

  async function limited() {
    const error = await failure(() => messages.create(says("limited")));
    return { ...describe(error), after: error.headers.get("retry-after") };
  }

  return {
    whole: async () => message(await messages.create(says("whole"))),
    raw,
    streamed: () => helper("streamed"),
    tools: async () => message(await messages.create(says("tools", { tools: TOOLS }))),
    tools_streamed: () => helper("tools", { tools: TOOLS }),
    structured: async () =>
      message(await messages.create(says("structured", { output_config: FORM }))),
    image: async () => message(await image()),
    too_long: () => messages.create(says("too_long")),
    broken: () => texts("broken", () => false),
    limited,
    leave: () => texts("leave", (text) => text !== ""),
  };
}

function message(answer) {
  const text = answer.content
    .filter((block) => block.type === "text")
    .map((block) => block.text)
    .join("");
  const calls = answer.content
    .filter((block) => block.type === "tool_use")
    .map((block) => [block.name, block.input]);
  const tokens = [answer.usage.input_tokens, answer.usage.output_tokens];
  return { text, calls, finish: answer.stop_reason, tokens };
}
