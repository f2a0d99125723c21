// The AI SDK with OpenAI's chat completions.

import { scenariosFor } from "./ai_sdk.mjs";
import { KEY, load } from "./target.mjs";

const { createOpenAI } = load("@ai-sdk/openai");

export function scenariosOf(url, model) {
  return scenariosFor(createOpenAI({ baseURL: `${url}/v1`, apiKey: KEY }).chat(model));
}
