import assert from "node:assert/strict";
import test from "node:test";

import { Live } from "../../../service/front/web/live/live.js";
import { LIVE_ROUTE, REFINE_ROUTE, Settings } from "../../../service/front/web/panel/settings.js";

/** A drawing whose picture is its text. */
class Drawing extends EventTarget {
  text = "";
  isDrawing = false;

  draw(text) {
    this.text = text;
    this.dispatchEvent(new Event("change"));
  }

  async toJpeg() {
    return new Blob([this.text]);
  }
}

/** A transport that answers when the test lets it. */
class Transport extends EventTarget {
  isReady = true;
  frames = [];

  send(frame) {
    return new Promise((resolve, reject) => this.frames.push({ ...frame, resolve, reject }));
  }

  ready(pace = { intervalMs: 0, pauseMs: 0 }) {
    this.dispatchEvent(new CustomEvent("ready", { detail: pace }));
  }
}

function painted({ steps = 4 } = {}) {
  const [drawing, transport, settings] = [new Drawing(), new Transport(), new Settings()];
  settings.set({ steps }); // of 4 steps nothing is left to settle
  const live = new Live({ drawing, settings, transport });
  const shown = [];
  live.addEventListener("picture", ({ detail }) => shown.push(detail));
  return { drawing, transport, settings, live, shown };
}

async function until(condition) {
  for (let tries = 0; tries < 400; tries += 1) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail("it did not come about");
}

const answer = (name) => ({ blob: name, seed: 7, stepsRun: 4, stages: {} });

test("an older answer that comes late is not shown", async () => {
  const { drawing, transport, shown } = painted();
  drawing.draw("one");
  await until(() => transport.frames.length === 1);
  drawing.draw("two");
  await until(() => transport.frames.length === 2);
  transport.frames[1].resolve(answer("second"));
  await until(() => shown.length === 1);
  transport.frames[0].resolve(answer("first"));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(shown.map(({ blob }) => blob), ["second"]);
});

test("what equals the last frame is not sent again, and a failed one is", async () => {
  const { drawing, transport, live } = painted();
  drawing.draw("one");
  await until(() => transport.frames.length === 1);
  transport.frames[0].resolve(answer("first"));
  drawing.draw("one");
  await until(() => live.counts.skipped === 1);
  assert.equal(transport.frames.length, 1);
  drawing.draw("two");
  await until(() => transport.frames.length === 2);
  transport.frames[1].reject(Object.assign(new Error("overloaded"), { retryAfterS: 0.01 }));
  await until(() => transport.frames.length === 3);
  assert.equal(await transport.frames[2].blob.text(), "two");
});

test("live frames come first, then one settling pass with all steps", async () => {
  const { drawing, transport, shown } = painted({ steps: 12 });
  drawing.draw("one");
  await until(() => transport.frames.length === 1);
  assert.deepEqual([transport.frames[0].route, transport.frames[0].fields.steps], [LIVE_ROUTE, 4]);
  transport.frames[0].resolve(answer("quick"));
  await until(() => transport.frames.length === 2);
  assert.deepEqual([transport.frames[1].route, transport.frames[1].fields.steps], [REFINE_ROUTE, 12]);
  transport.frames[1].resolve(answer("whole"));
  await until(() => shown.length === 2);
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.equal(transport.frames.length, 2);
});

test("where the routes decode otherwise, as many steps are settled too", async () => {
  const { drawing, transport, live } = painted();
  live.routesDiffer = true;
  drawing.draw("one");
  await until(() => transport.frames.length === 1);
  transport.frames[0].resolve(answer("quick"));
  await until(() => transport.frames.length === 2);
  assert.equal(transport.frames[1].route, REFINE_ROUTE);
  assert.equal(live.counts.skipped, 0);
});

test("nothing is sent while paused or without a connection, and all of it afterwards", async () => {
  const { drawing, transport, live } = painted();
  transport.isReady = false;
  drawing.draw("one");
  await new Promise((resolve) => setTimeout(resolve, 120));
  assert.equal(transport.frames.length, 0);
  transport.isReady = true;
  transport.ready();
  await until(() => transport.frames.length === 1);
  transport.frames[0].resolve(answer("first"));
  live.pause(true);
  drawing.draw("two");
  await new Promise((resolve) => setTimeout(resolve, 120));
  assert.equal(transport.frames.length, 1);
  live.pause(false);
  await until(() => transport.frames.length === 2);
});

test("a frame that is being encoded when a pause begins is kept back until its end", async () => {
  const { drawing, transport, live } = painted();
  const encode = [];
  drawing.toJpeg = () => new Promise((resolve) => encode.push(() => resolve(new Blob(["one"]))));
  drawing.draw("one");
  await until(() => encode.length === 1);
  live.pause(true);
  encode[0]();
  await new Promise((resolve) => setTimeout(resolve, 120));
  assert.equal(transport.frames.length, 0);
  live.pause(false);
  await until(() => encode.length === 2);
  encode[1]();
  await until(() => transport.frames.length === 1);
});

test("a picture asked for by a button is not replaced by an older frame, nor by settling", async () => {
  const { drawing, transport, live, shown } = painted({ steps: 12 });
  drawing.draw("one");
  await until(() => transport.frames.length === 1);
  const { isNewest } = await live.during(async () => "asked for");
  assert.ok(isNewest);
  transport.frames[0].resolve(answer("late"));
  await new Promise((resolve) => setTimeout(resolve, 700));
  assert.equal(shown.length, 0);
  assert.equal(transport.frames.length, 1);
  drawing.draw("two");
  await until(() => transport.frames.length === 2);
});

test("what changed just before a picture was asked for is left to it", async () => {
  const { drawing, transport, live, settings, shown } = painted({ steps: 12 });
  drawing.draw("one");
  settings.set({ seed: 5 }); // as a button does before it asks
  let finish;
  const asked = live.during(() => new Promise((resolve) => (finish = resolve)));
  await new Promise((resolve) => setTimeout(resolve, 150));
  assert.equal(transport.frames.length, 0);
  finish("asked for");
  assert.ok((await asked).isNewest);
  await new Promise((resolve) => setTimeout(resolve, 700));
  assert.deepEqual([transport.frames.length, shown.length], [0, 0]);
});

test("what changed before a picture of something else was asked for is shown after it", async () => {
  const { drawing, transport, live } = painted();
  drawing.draw("one");
  await live.during(async () => "enlarged", { showsDrawing: false });
  await until(() => transport.frames.length === 1);
});

test("a frame that is being encoded when a picture is asked for does not replace it", async () => {
  const { drawing, transport, live, shown } = painted();
  let encoded;
  drawing.toJpeg = () => new Promise((resolve) => (encoded = resolve));
  drawing.draw("one");
  await until(() => encoded);
  const { isNewest } = await live.during(async () => {
    encoded(new Blob(["one"]));
    await until(() => transport.frames.length === 1);
    return "asked for";
  });
  assert.ok(isNewest);
  transport.frames[0].resolve(answer("late"));
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(shown.length, 0);
});

test("live frames wait for the last of two pictures, and show what a failed one would have", async () => {
  const { drawing, transport, live } = painted();
  drawing.draw("one");
  const ends = [];
  const ask = () => live.during(() => new Promise((resolve, reject) => ends.push({ resolve, reject })));
  const [first, second] = [ask(), ask()];
  ends[0].reject(new Error("given up"));
  await assert.rejects(first);
  await new Promise((resolve) => setTimeout(resolve, 150));
  assert.equal(transport.frames.length, 0);
  ends[1].reject(new Error("failed"));
  await assert.rejects(second);
  await until(() => transport.frames.length === 1);
});

test("a burst of changes is a frame or two on their way, and the last change is shown", async () => {
  const { drawing, transport, shown, live } = painted();
  transport.ready();
  for (let index = 0; index < 300; index += 1) {
    drawing.draw(`stroke ${index}`);
    if (index % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.ok(transport.frames.length - shown.length - live.counts.replaced <= 2);
    if (index % 60 === 59 && transport.frames.length > 0) {
      for (const frame of transport.frames) frame.resolve(answer(await frame.blob.text()));
    }
  }
  await until(() => {
    for (const frame of transport.frames) frame.blob.text().then((text) => frame.resolve(answer(text)));
    return shown.at(-1)?.blob === "stroke 299";
  });
});
