// openai-node, chat completions.

import { KEY, PIXEL, SCHEMA, describe, failure, load, parameters } from "./target.mjs";

const { OpenAI } = load("openai");

const tool = (name, parameter) => ({
  type: "function",
  function: { name, parameters: parameters(parameter), strict: true },
});
const TOOLS = [tool("weather", "city"), tool("clock", "zone")];
const WITH_USAGE = { stream: true, stream_options: { include_usage: true } };
const FORM = {
  type: "json_schema",
  json_schema: { name: "colour", schema: SCHEMA, strict: true },
};

export function scenariosOf(url, model) {
  const chat = new OpenAI({ baseURL: `${url}/v1`, apiKey: KEY, maxRetries: 0 }).chat.completions;
  const says = (scenario, others) => ({
    model,
    messages: [{ role: "user", content: `scenario:${scenario}` }],
    ...others,
  });

  async function streamed() {
    let text = "";
    const finish = [];
    const tokens = [];
    for await (const chunk of await chat.create(says("streamed", WITH_USAGE))) {
      if (chunk.usage) tokens.push([chunk.usage.prompt_tokens, chunk.usage.completion_tokens]);
      for (const choice of chunk.choices) {
        text += choice.delta.content ?? "";
        if (choice.finish_reason) finish.push(choice.finish_reason);
      }
    }
    return { text, finish, tokens };
  }

  async function helper(scenario, others) {
    const options = { stream_options: { include_usage: true }, ...others };
    return completion(await chat.stream(says(scenario, options)).finalChatCompletion());
  }

  async function structured() {
    const parsed = await chat.parse(says("structured", { response_format: FORM }));
    return parsed.choices[0].message.parsed;
  }

  function image() {
    const content = [
      { type: "text", text: "scenario:image" },
      { type: "image_url", image_url: { url: `data:image/png;base64,${PIXEL}` } },
    ];
    return chat.create({ model, messages: [{ role: "user", content }] });
  }

  async function broken() {
    let text = "";
    try {
      for await (const chunk of await chat.create(says("broken", { stream: true }))) {
        text += chunk.choices[0].delta.content ?? "";
      }
    } catch (error) {
      return { text, ...describe(error) };
    }
    return { text };
  }

  async function limited() {
    const error = await failure(() => chat.create(says("limited")));
    return { ...describe(error), after: error.headers.get("retry-after") };
  }

  async function tooLong() {
    const error = await failure(() => chat.create(says("too_long")));
    return { ...describe(error), code: error.code };
  }

  async function leave() {
    for await (const chunk of await chat.create(says("leave", { stream: true }))) {
      if (chunk.choices[0].delta.content) return { text: chunk.choices[0].delta.content };
    }
  }

  return {
    whole: async () => completion(await chat.create(says("whole"))),
    streamed,
    stream_helper: () => helper("streamed"),
    tools: async () => completion(await chat.create(says("tools", { tools: TOOLS }))),
    tools_streamed: () => helper("tools", { tools: TOOLS }),
    structured,
    image: async () => completion(await image()),
    too_long: tooLong,
    broken,
    limited,
    leave,
  };
}

function completion(answer) {
  const { message, finish_reason: finish } = answer.choices[0];
  const calls = (message.tool_calls ?? []).map(({ function: call }) => [
    call.name,
    JSON.parse(call.arguments),
  ]);
  const tokens = [answer.usage.prompt_tokens, answer.usage.completion_tokens];
  return { text: message.content, calls, finish, tokens };
}
