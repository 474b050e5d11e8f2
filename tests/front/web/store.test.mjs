import assert from "node:assert/strict";
import test from "node:test";

import { Store } from "../../../service/front/web/store.js";
import { newStore } from "./fixtures.mjs";

test("a change is announced once, with the names that differ", () => {
  const store = newStore();
  const { steps } = store.state;
  const changes = [];
  store.on("change", (names) => changes.push([...names]));
  store.set({ steps, strength: 0.7, seed: 7 });
  store.set({ strength: 0.7 });
  store.set({ strength: "0.8" });
  assert.deepEqual(changes, [["strength"]]);
});

test("a subscriber sees the whole change, a follower the present state as well", () => {
  const store = new Store({ width: 1, height: 1, other: 1 });
  const seen = [];
  store.subscribe(["width", "height"], ({ width, height }) => seen.push(["later", width, height]));
  store.follow(["width"], ({ width }) => seen.push(["at once", width]));
  store.set({ other: 2 });
  store.set({ width: 2, height: 2 });
  assert.deepEqual(seen, [["at once", 1], ["later", 2, 2], ["at once", 2]]);
});

test("a change within a reaction reaches every subscriber", () => {
  const store = new Store({ asked: 0, done: 0 });
  const seen = [];
  store.subscribe(["asked"], ({ asked }) => store.set({ done: asked }));
  store.subscribe(["done"], ({ done }) => seen.push(done));
  store.set({ asked: 1 });
  store.set({ asked: 2 });
  assert.deepEqual(seen, [1, 2]);
});

test("an event carries its detail and leaves the state alone", () => {
  const store = new Store({ asked: 0 });
  const { state } = store;
  const heard = [];
  store.on("notice", (notice) => heard.push(notice));
  store.emit("notice", { text: "saved" });
  assert.deepEqual(heard, [{ text: "saved" }]);
  assert.equal(store.state, state);
});
