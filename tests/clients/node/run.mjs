// Runs a client's scenarios against one address after the other, and prints what it makes of them:
// `node run.mjs openai_chat URL MODEL URL MODEL …`, with the packages of NODE_MODULES.

import { describe } from "./target.mjs";

const [driver, ...rest] = process.argv.slice(2);
const { scenariosOf } = await import(`./${driver}.mjs`);
const printed = [];
for (let at = 0; at < rest.length; at += 2) {
  const found = {};
  const scenarios = await scenariosOf(rest[at], rest[at + 1]);
  for (const [name, scenario] of Object.entries(scenarios)) {
    try {
      found[name] = await scenario();
    } catch (error) {
      found[name] = describe(error);
    }
  }
  printed.push(found);
}
console.log(JSON.stringify(printed));
process.exit(); // or it waits for connections that are kept alive
