// The AI SDK with Anthropic's messages.

import { scenariosFor } from "./ai_sdk.mjs";
import { KEY, load } from "./target.mjs";

const { createAnthropic } = load("@ai-sdk/anthropic");

export function scenariosOf(url, model) {
  return scenariosFor(createAnthropic({ baseURL: `${url}/v1`, apiKey: KEY })(model), {
    anthropic: { structuredOutputMode: "outputFormat" }, // and not a tool, as for older models
  });
}
