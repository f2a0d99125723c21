// The AI SDK's scenarios, for any of its models.

import { PIXEL, SCHEMA, describe, failure, load, parameters } from "./target.mjs";

const { Output, generateText, jsonSchema, streamText, tool } = load("ai");

const TOOLS = {
  weather: tool({ description: "The weather.", inputSchema: jsonSchema(parameters("city")) }),
  clock: tool({ description: "The time.", inputSchema: jsonSchema(parameters("zone")) }),
};
const FORM = Output.object({ schema: jsonSchema(SCHEMA) });
const QUIET = { onError: () => {} }; // else it prints

export function scenariosFor(model, providerOptions = {}) {
  const asked = (scenario, others) => ({
    model,
    providerOptions,
    maxRetries: 0,
    prompt: `scenario:${scenario}`,
    ...others,
  });
  const ask = (scenario, others) => generateText(asked(scenario, others));

  async function streamed(scenario, others) {
    const stream = streamText(asked(scenario, { ...QUIET, ...others }));
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    const [calls, finish, usage] = await Promise.all([
      stream.toolCalls,
      stream.finishReason,
      stream.usage,
    ]);
    return summary(text, calls, finish, usage);
  }

  function image() {
    const content = [
      { type: "text", text: "scenario:image" },
      { type: "file", data: PIXEL, mediaType: "image/png" },
    ];
    const messages = [{ role: "user", content }];
    return generateText({ model, providerOptions, maxRetries: 0, messages });
  }

  async function broken() {
    let text = "";
    for await (const part of streamText(asked("broken", QUIET)).fullStream) {
      if (part.type === "text-delta") text += part.text;
      if (part.type === "error") return { text, error: "an error part" };
    }
    return { text };
  }

  async function limited() {
    const error = await failure(() => ask("limited"));
    return { ...describe(error), after: error.responseHeaders["retry-after"] };
  }

  async function leave() {
    const leaving = new AbortController();
    const stream = streamText(asked("leave", { ...QUIET, abortSignal: leaving.signal }));
    for await (const piece of stream.textStream) {
      leaving.abort();
      return { text: piece };
    }
  }

  return {
    whole: async () => result(await ask("whole")),
    streamed: () => streamed("streamed"),
    tools: async () => result(await ask("tools", { tools: TOOLS })),
    tools_streamed: () => streamed("tools", { tools: TOOLS }),
    structured: async () => (await ask("structured", { output: FORM })).output,
    image: async () => result(await image()),
    too_long: () => ask("too_long"),
    broken,
    limited,
    leave,
  };
}

const result = ({ text, toolCalls, finishReason, usage }) =>
  summary(text, toolCalls, finishReason, usage);

function summary(text, calls, finish, usage) {
  return {
    text,
    calls: calls.map((call) => [call.toolName, call.input]),
    finish,
    tokens: [usage.inputTokens, usage.outputTokens],
  };
}
