import assert from "node:assert/strict";
import test from "node:test";

import { History, LEAST_ENTRIES, MAX_BYTES, MAX_ENTRIES } from "../../../service/front/web/drawing/history.js";

/** A document of one number; an entry is another number, and swapping exchanges them. */
function documentOf(bytes = 1) {
  const page = { now: 0 };
  page.history = new History((entry) => {
    const inverse = { value: page.now, bytes };
    page.now = entry.value;
    return inverse;
  });
  page.change = (value) => {
    page.history.push({ value: page.now, bytes });
    page.now = value;
  };
  return page;
}

test("undo and redo agree with a list of all states, in any order", () => {
  let seed = 7;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const page = documentOf();
  let states = [0];
  let at = 0;
  for (let round = 0; round < 3000; round += 1) {
    const dice = random();
    if (dice < 0.4) {
      states = [...states.slice(0, at + 1), round + 1].slice(-MAX_ENTRIES - 1);
      at = states.length - 1;
      page.change(round + 1);
    } else if (dice < 0.75) {
      assert.equal(page.history.undo(), at > 0);
      at = Math.max(0, at - 1);
    } else {
      assert.equal(page.history.redo(), at < states.length - 1);
      at = Math.min(states.length - 1, at + 1);
    }
    assert.equal(page.now, states[at]);
    assert.equal(page.history.canUndo, at > 0);
    assert.equal(page.history.canRedo, at < states.length - 1);
  }
});

test("at least fifty changes can be undone, of any size", () => {
  const page = documentOf(MAX_BYTES);
  for (let value = 1; value <= 80; value += 1) page.change(value);
  assert.equal(page.history.size, LEAST_ENTRIES);
  assert.ok(LEAST_ENTRIES >= 50);
  while (page.history.undo());
  assert.equal(page.now, 80 - LEAST_ENTRIES);
});

test("a change drops the undone ones", () => {
  const page = documentOf();
  page.change(1);
  page.history.undo();
  page.change(2);
  assert.equal(page.history.redo(), false);
  assert.equal(page.now, 2);
});
