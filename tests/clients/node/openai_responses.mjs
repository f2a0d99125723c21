// openai-node, responses.

import { KEY, SCHEMA, describe, failure, load, parameters } from "./target.mjs";

const { OpenAI } = load("openai");

const tool = (name, parameter) => ({
  type: "function",
  name,
  parameters: parameters(parameter),
  strict: true,
});
const TOOLS = [tool("weather", "city"), tool("clock", "zone")];
const FORM = { format: { type: "json_schema", name: "colour", schema: SCHEMA, strict: true } };

export function scenariosOf(url, model) {
  const { responses } = new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY, maxRetries: 0 });
  const says = (scenario, others) => ({ model, input: `scenario:${scenario}`, ...others });

  async function broken() {
    let text = "";
    for await (const event of await responses.create(says("broken", { stream: true }))) {
      if (event.type === "response.output_text.delta") text += event.delta;
      if (event.type === "response.failed") return { text, error: event.response.error.code };
    }
    return { text };
  }

  async function tooLong() {
    const error = await failure(() => responses.create(says("too_long")));
    return { ...describe(error), code: error.code };
  }

  async function follow(name, after) {
    const events = [];
    const query = { stream: true, ...(after === undefined ? {} : { starting_after: after }) };
    for await (const event of await responses.retrieve(name, query)) events.push(event);
    return events;
  }

  async function background() {
    const begun = await responses.create(says("whole", { background: true, store: true }));
    await follow(begun.id);
    return response(await responses.retrieve(begun.id));
  }

  // Breaks off after the first word, and comes back.
  async function resumed() {
    const asked = says("streamed", { background: true, store: true, stream: true });
    const texts = (events) =>
      events.filter((event) => event.type === "response.output_text.delta");
    const read = [];
    for await (const event of await responses.create(asked)) {
      read.push(event);
      if (event.type === "response.output_text.delta") break;
    }
    const rest = await follow(read[0].response.id, read.at(-1).sequence_number);
    const text = texts([...read, ...rest])
      .map((event) => event.delta)
      .join("");
    return { text, ended: rest.at(-1).type };
  }

  async function cancelled() {
    let begun = await responses.create(says("leave", { background: true, store: true }));
    while (begun.status === "queued") begun = await responses.retrieve(begun.id);
    return [begun.status, (await responses.cancel(begun.id)).status];
  }

  const streamed = async (scenario, others) =>
    response(await responses.stream(says(scenario, others)).finalResponse());
  return {
    whole: async () => response(await responses.create(says("whole"))),
    streamed: () => streamed("streamed"),
    tools: async () => response(await responses.create(says("tools", { tools: TOOLS }))),
    tools_streamed: () => streamed("tools", { tools: TOOLS }),
    structured: async () =>
      (await responses.parse(says("structured", { text: FORM }))).output_parsed,
    broken,
    too_long: tooLong,
    background,
    resumed,
    cancelled,
  };
}

function response(answer) {
  const calls = answer.output
    .filter((item) => item.type === "function_call")
    .map((item) => [item.name, JSON.parse(item.arguments)]);
  const text = answer.output
    .filter((item) => item.type === "message")
    .flatMap((item) => item.content)
    .map((part) => part.text)
    .join("");
  return { text, calls, tokens: [answer.usage.input_tokens, answer.usage.output_tokens] };
}
