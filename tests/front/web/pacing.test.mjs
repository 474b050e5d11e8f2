import assert from "node:assert/strict";
import test from "node:test";

import {
  COALESCE_MS, LONGEST_WAIT_MS, MAX_IN_FLIGHT, Pacer, SETTLE_MS, SLOW_SETTLE_MS,
} from "../../../service/front/web/live/pacing.js";

test("changes within 64 ms share a frame", () => {
  const pacer = new Pacer();
  pacer.change(1000);
  pacer.change(1030);
  assert.deepEqual(pacer.next(), { kind: "live", at: 1000 + COALESCE_MS });
});

test("frames keep the server's interval", () => {
  const pacer = new Pacer();
  pacer.pace({ intervalMs: 200, pauseMs: 0 });
  pacer.change(0);
  pacer.sent(64);
  pacer.change(70);
  assert.equal(pacer.next().at, 264);
});

test("a slow engine gets a frame when the pen rests, and at least every three seconds", () => {
  const pacer = new Pacer();
  pacer.pace({ intervalMs: 0, pauseMs: 250 });
  pacer.change(0);
  for (let now = 100; now <= 2900; now += 100) {
    pacer.change(now);
    assert.equal(pacer.next().at, Math.min(now + 250, LONGEST_WAIT_MS));
  }
});

test("at most two frames are in flight, and an answer makes room for the next", () => {
  const pacer = new Pacer();
  for (const now of [0, 100, 200]) {
    pacer.change(now);
    if (pacer.next()) pacer.sent(now + COALESCE_MS);
  }
  assert.equal(MAX_IN_FLIGHT, 2);
  assert.equal(pacer.next(), null);
  pacer.answered();
  assert.equal(pacer.next().kind, "live");
});

test("one settling pass follows when the pen is up and every frame is answered", () => {
  const pacer = new Pacer();
  pacer.pen(true);
  pacer.change(0);
  pacer.sent(64);
  pacer.answered();
  assert.equal(pacer.next(), null);
  pacer.pen(false);
  assert.deepEqual(pacer.next(), { kind: "settle", at: SETTLE_MS });
  pacer.sent(SETTLE_MS, { settling: true });
  pacer.answered();
  assert.equal(pacer.next(), null);
});

test("with slow frames, settling waits longer", () => {
  const pacer = new Pacer();
  pacer.pace({ intervalMs: 250, pauseMs: 250 });
  pacer.change(0);
  pacer.sent(250);
  pacer.answered();
  assert.deepEqual(pacer.next(), { kind: "settle", at: SLOW_SETTLE_MS });
});

test("a change during a settling pass is sent and settled", () => {
  const pacer = new Pacer();
  pacer.change(0);
  pacer.sent(64);
  pacer.answered();
  pacer.sent(500, { settling: true });
  pacer.change(600);
  assert.equal(pacer.next().kind, "live");
  pacer.sent(664);
  pacer.answered();
  pacer.answered();
  assert.deepEqual(pacer.next(), { kind: "settle", at: 600 + SETTLE_MS });
});

test("the last change is always sent and settled, and no frame comes too soon", () => {
  let seed = 11;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  for (let run = 0; run < 200; run += 1) {
    const pacer = new Pacer();
    const answers = []; // times at which frames are answered
    let [changed, sentLive, settled, lastSent] = [0, -1, -1, -Infinity];
    const interval = Math.floor(random() * 300);
    pacer.pace({ intervalMs: interval, pauseMs: random() < 0.5 ? 250 : 0 });
    pacer.change(0);
    for (let now = 0; now < 30_000; now += 10) {
      if (now < 5000 && random() < 0.1) {
        changed = now;
        pacer.pen(random() < 0.5);
        pacer.change(now);
      }
      if (now === 5000) pacer.pen(false);
      while (answers[0] <= now) {
        answers.shift();
        pacer.answered();
      }
      const next = pacer.next();
      if (!next || next.at > now) continue;
      const settling = next.kind === "settle";
      if (!settling) assert.ok(now - lastSent >= interval);
      lastSent = now;
      pacer.sent(now, { settling });
      if (settling) settled = now;
      else sentLive = now;
      answers.push(now + Math.floor(random() * 900));
      answers.sort((one, two) => one - two);
      assert.ok(answers.length <= MAX_IN_FLIGHT);
    }
    assert.ok(sentLive >= changed, "the last change was never sent");
    assert.ok(settled >= sentLive, "the last frame was never settled");
  }
});
