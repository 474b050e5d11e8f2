// Drives the official client: reads a scenario per line, prints what came of it as a line of JSON.
//
//   {"scenario": "performInstantRefine", "serverURL", "bearerAuth", "retryConfig", "request"}
//   {"scenario": "createLCMGeneration", and the same}, and so for the other two routes
//   {"scenario": "parse", "answers": [an answer's text, ...]}

import { createInterface } from "node:readline";
import { HTTPClient, Leonardo } from "@leonardo-ai/sdk";
import * as operations from "@leonardo-ai/sdk/sdk/models/operations/index.js";

async function call(method, { request, ...options }) {
  const exchanges = [];
  const httpClient = new HTTPClient();
  httpClient.addHook("beforeRequest", async (sent) => {
    const body = await sent.clone().text();
    exchanges.push({ sentAtMs: performance.now(), url: sent.url, sent: body });
  });
  httpClient.addHook("response", async (received) => {
    const { status, redirected } = received;
    Object.assign(exchanges.at(-1), { status, redirected, received: await received.clone().text() });
  });
  const sdk = new Leonardo({ httpClient, ...options });
  try {
    const { statusCode, contentType, object } = await sdk.realtimeCanvas[method](request);
    return { statusCode, contentType, object, exchanges };
  } catch (error) {
    const { name, message, statusCode, body } = error;
    const headers = Object.fromEntries(error.headers ?? []);
    return { error: { name, message, statusCode, body, headers }, exchanges };
  }
}

function parse({ answers }) {
  const parsers = [
    operations.performInstantRefineResponseBodyFromJSON,
    operations.createLCMGenerationResponseBodyFromJSON,
  ];
  return answers.map((answer) => parsers.map((parser) => parser(answer)));
}

for await (const line of createInterface({ input: process.stdin })) {
  const { scenario, ...given } = JSON.parse(line);
  const outcome = scenario === "parse" ? parse(given) : await call(scenario, given);
  console.log(JSON.stringify(outcome));
}
