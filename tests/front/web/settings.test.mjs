import assert from "node:assert/strict";
import test from "node:test";

import { fingerprint } from "../../../service/front/web/live/fingerprint.js";
import {
  DEFAULTS, INPAINT_ROUTE, LIVE_ROUTE, LIVE_STEPS, MAX_SEED, REFINE_ROUTE, Settings, UPSCALE_ROUTE,
  randomSeed, sound, stepsRun, strengthWord, toFields,
} from "../../../service/front/web/panel/settings.js";

test("the steps that run are those of the sampler, float and all", () => {
  assert.equal(stepsRun(16, 0.31), 15);
  assert.equal(stepsRun(16, 0.58), 16);
  assert.equal(stepsRun(6, 0.11), 5);
  assert.equal(stepsRun(4, 0.1), 4);
  assert.equal(stepsRun(16, 0.29), Math.trunc(50 * 0.29));
});

test("strength is told in words, from faithful to creative", () => {
  const words = [0.1, 0.4, 0.6, 0.8, 1].map(strengthWord);
  assert.deepEqual(words, ["faithful", "close", "balanced", "free", "creative"]);
});

test("a live frame takes few steps, the settling one all of them", () => {
  const values = { ...DEFAULTS, steps: 12 };
  assert.equal(toFields(values, LIVE_ROUTE).steps, LIVE_STEPS);
  assert.equal(toFields(values, REFINE_ROUTE).steps, 12);
});

test("each route gets the fields that it knows, and no other", () => {
  const common = [
    "guidance", "height", "prompt", "seed", "steps", "strength", "style", "width",
  ];
  for (const route of [LIVE_ROUTE, REFINE_ROUTE, INPAINT_ROUTE]) {
    assert.deepEqual(Object.keys(toFields(DEFAULTS, route)).sort(), common);
  }
  const upscale = Object.keys(toFields(DEFAULTS, UPSCALE_ROUTE));
  assert.ok(upscale.includes("refineStrength") && upscale.includes("refineCreative"));
  assert.ok(!upscale.includes("strength"));
});

test("values are brought inside their bounds, and what is none is left out", () => {
  assert.equal(sound("steps", 99), 16);
  assert.equal(sound("strength", 0), 0.1);
  assert.equal(sound("seed", 1e12), MAX_SEED);
  assert.equal(sound("seed", Number.NaN), undefined);
  assert.equal(sound("width", 700), undefined);
  assert.equal(sound("background", "red"), undefined);
  assert.equal(sound("prompt", "x".repeat(2000)).length, 1500);
  assert.equal(sound("unknown", 1), undefined);
});

test("only what differs is told, once", () => {
  const settings = new Settings();
  const told = [];
  settings.addEventListener("change", ({ detail }) => told.push([...detail]));
  settings.set({ steps: DEFAULTS.steps, strength: 0.7, seed: 7 });
  settings.set({ strength: 0.7 });
  assert.deepEqual(told, [["strength"]]);
});

test("seeds are whole and inside the bounds of the service", () => {
  assert.equal(randomSeed(() => 0), 0);
  assert.equal(randomSeed(() => 1 - 2 ** -53), MAX_SEED);
});

test("a fingerprint tells any change of picture or fields, but not the order of fields", () => {
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
