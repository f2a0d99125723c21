// What all drivers need.

import { createRequire } from "node:module";

// The packages are installed beside the Python clients, and not in this folder.
export const load = createRequire(`${process.env.NODE_MODULES}/`);
export const KEY = "sk-test";
export const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk" +
  "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
export const SCHEMA = {
  type: "object",
  properties: { colour: { type: "string" }, score: { type: "integer" } },
  required: ["colour", "score"],
  additionalProperties: false,
};

// The error as a program sees it; its words are the service's own.
export function describe(error) {
  const status = error.status ?? error.statusCode ?? null;
  return { error: error.constructor.name, status };
}

export async function failure(work) {
  try {
    return await work();
  } catch (error) {
    return error;
  }
}

export function parameters(name) {
  return {
    type: "object",
    properties: { [name]: { type: "string" } },
    required: [name],
    additionalProperties: false,
  };
}
