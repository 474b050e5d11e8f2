import assert from "node:assert/strict";
import test from "node:test";

import { LatestPicture } from "../../../service/front/web/live/latest_picture.js";
import { newStore } from "./fixtures.mjs";

/** A page whose decoder takes as many ticks as the picture's blob says. */
function page() {
  const store = newStore();
  const drawn = [];
  const events = [];
  let numOpen = 0;
  const latest = new LatestPicture({
    store,
    decode: async ({ id, ticks }) => {
      numOpen += 1;
      for (let tick = 0; tick < ticks; tick += 1) await null;
      return { id, width: 512, height: 640, close: () => (numOpen -= 1) };
    },
    draw: ({ id }) => drawn.push(id),
  });
  store.on("picture", ({ picture, isShown }) => events.push([picture.id, isShown]));
  return { store, latest, drawn, events, numOpen: () => numOpen };
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 0));

test("in any order of answers and decoding, an older picture never follows a newer one", async () => {
  let seed = 3;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  for (let run = 0; run < 300; run += 1) {
    const { store, latest, drawn, events, numOpen } = page();
    const ids = Array.from({ length: 12 }, () => latest.nextId());
    for (const id of [...ids].sort(() => random() - 0.5)) {
      store.emit("answer", { id, blob: { id, ticks: Math.floor(40 * random()) } });
      for (let tick = Math.floor(20 * random()); tick > 0; tick -= 1) await null;
    }
    await settled();
    assert.deepEqual(drawn, [...drawn].sort((one, two) => one - two));
    assert.equal(drawn.at(-1), ids.at(-1));
    assert.equal(store.state.picture.id, ids.at(-1));
    assert.deepEqual(events.filter(([, isShown]) => isShown).map(([id]) => id), drawn);
    assert.equal(events.length, ids.length);
    assert.equal(numOpen(), 0);
  }
});

test("an earlier picture can be shown again, and a later answer replaces it", async () => {
  const { store, latest, drawn, events } = page();
  const [first, second] = [latest.nextId(), latest.nextId()].map((id) => ({
    id, blob: { id, ticks: 1 },
  }));
  store.emit("answer", second);
  store.emit("answer", first);
  store.emit("show", first);
  await settled();
  assert.deepEqual(drawn, [second.id, first.id]);
  assert.equal(store.state.picture.blob, first.blob);
  assert.deepEqual([store.state.picture.width, store.state.picture.height], [512, 640]);
  const third = latest.nextId();
  store.emit("answer", { id: third, blob: { id: third, ticks: 1 } });
  await settled();
  assert.equal(drawn.at(-1), third);
  assert.equal(events.length, 3);
});
