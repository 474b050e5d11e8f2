import assert from "node:assert/strict";
import test from "node:test";

import { fingerprint } from "../../../service/front/web/live/fingerprint.js";
import {
  INPAINT_ROUTE, LIVE_ROUTE, REFINE_ROUTE, SETTINGS, UPSCALE_ROUTE,
  checked, randomSeed, stepsRun, strengthWord, toFields,
} from "../../../service/front/web/panel/settings.js";
import { createStore } from "../../../service/front/web/state.js";
import { LIMITS, newStore } from "./fixtures.mjs";

test("the steps that run are the sampler's, rounding included", () => {
  assert.equal(stepsRun(16, 0.31), 15);
  assert.equal(stepsRun(16, 0.58), 16);
  assert.equal(stepsRun(6, 0.11), 5);
  assert.equal(stepsRun(4, 0.1), 4);
  assert.equal(stepsRun(16, 0.29), Math.trunc(50 * 0.29));
});

test("strength has words, from faithful to creative", () => {
  const words = [0.1, 0.4, 0.6, 0.8, 1].map(strengthWord);
  assert.deepEqual(words, ["faithful", "close", "balanced", "free", "creative"]);
});

test("a live frame takes the service's live steps, and never more than were set", () => {
  const { state } = newStore({ steps: 12 });
  assert.equal(toFields(state, LIVE_ROUTE).steps, 4);
  assert.equal(toFields(state, REFINE_ROUTE).steps, 12);
  const routeDefaults = { [LIVE_ROUTE]: { steps: 8 } };
  assert.equal(toFields({ ...state, routeDefaults }, LIVE_ROUTE).steps, 8);
  assert.equal(toFields({ ...state, routeDefaults, steps: 5 }, LIVE_ROUTE).steps, 5);
});

test("each route gets its own fields, and the service fills in unknown ones", () => {
  const { state } = newStore();
  const common = [
    "guidance", "height", "prompt", "seed", "steps", "strength", "style", "width",
  ];
  for (const route of [LIVE_ROUTE, REFINE_ROUTE, INPAINT_ROUTE]) {
    assert.deepEqual(Object.keys(toFields(state, route)).sort(), common);
  }
  const upscale = Object.keys(toFields(state, UPSCALE_ROUTE));
  assert.ok(upscale.includes("refineStrength") && upscale.includes("refineCreative"));
  assert.ok(!upscale.includes("strength"));
  const fields = toFields(createStore(LIMITS).state, LIVE_ROUTE);
  assert.deepEqual(Object.keys(fields).sort(), ["height", "prompt", "seed", "style", "width"]);
});

test("a value is brought within its limits; one of another type is refused", () => {
  const value = (name, given) => checked(name, given, LIMITS);
  assert.equal(value("steps", 99), 16);
  assert.equal(value("steps", 7.4), 7);
  assert.equal(value("strength", 0), 0.1);
  assert.equal(value("seed", 1e12), LIMITS.seed.maximum);
  assert.equal(value("prompt", "x".repeat(2000)).length, 1500);
  const refused = [
    ["seed", Number.NaN], ["steps", "8"], ["width", 700], ["background", "red"], ["prompt", 7],
    ["seedLocked", 1], ["refineCreative", null],
  ];
  for (const [name, given] of refused) assert.equal(value(name, given), undefined);
  for (const name of Object.keys(SETTINGS)) assert.equal(value(name, undefined), undefined);
});

test("seeds are whole numbers within the service's limits", () => {
  assert.equal(randomSeed(LIMITS, () => 0), 0);
  assert.equal(randomSeed(LIMITS, () => 1 - 2 ** -53), LIMITS.seed.maximum);
});

test("a fingerprint depends on picture and fields, but not on the order of fields", () => {
  const bytes = Uint8Array.from({ length: 5000 }, (_, index) => index);
  const seen = new Set([fingerprint(bytes, { seed: 1, prompt: "a" })]);
  assert.ok(seen.has(fingerprint(bytes, { prompt: "a", seed: 1 })));
  for (let at = 0; at < 5000; at += 7) {
    const other = bytes.slice();
    other[at] ^= 1;
    seen.add(fingerprint(other, { seed: 1, prompt: "a" }));
  }
  for (let seed = 2; seed < 500; seed += 1) seen.add(fingerprint(bytes, { seed, prompt: "a" }));
  assert.equal(seen.size, 1 + Math.ceil(5000 / 7) + 498);
});
