import assert from "node:assert/strict";
import test from "node:test";

import { LatestPicture } from "../../../service/front/web/live/latest_picture.js";
import { Live } from "../../../service/front/web/live/live.js";
import { LIVE_ROUTE, REFINE_ROUTE } from "../../../service/front/web/panel/settings.js";
import { newStore } from "./fixtures.mjs";

/** A drawing whose picture is its text. */
class Drawing {
  text = "";

  constructor(store) {
    this.store = store;
  }

  draw(text) {
    this.text = text;
    this.store.emit("drawn");
  }

  async toJpeg() {
    return new Blob([this.text]);
  }
}

/** A transport whose answers the test sends. */
class Transport {
  frames = [];

  send(frame) {
    return new Promise((resolve, reject) => this.frames.push({ ...frame, resolve, reject }));
  }
}

function page({ steps = 4, autoencoder = "full", isOpen = true } = {}) {
  const store = newStore({ steps, autoencoder }); // with 4 steps a settling frame equals a live one
  store.set({ isOpen });
  const [drawing, transport] = [new Drawing(store), new Transport()];
  const decode = async () => ({ width: 512, height: 512, close: () => {} });
  const latest = new LatestPicture({ store, decode, draw: () => {} });
  const live = new Live({ store, drawing, transport, nextId: () => latest.nextId() });
  const shown = [];
  store.subscribe(["picture"], ({ picture }) => shown.push(picture));
  const request = async (...work) => store.emit("answer", await live.during(...work));
  return { store, drawing, transport, request, shown };
}

async function until(condition) {
  for (let tries = 0; tries < 400; tries += 1) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail("the condition did not become true");
}

const answer = (name) => ({ blob: name, seed: 7, stepsRun: 4, stages: {} });

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Run a request by button that makes a picture of this name. */
const named = (name) => async () => answer(name);

test("a late older answer is not shown", async () => {
  const { drawing, transport, shown } = page();
  drawing.draw("one");
  await until(() => transport.frames.length === 1);
  drawing.draw("two");
  await until(() => transport.frames.length === 2);
  transport.frames[1].resolve(answer("second"));
  await until(() => shown.length === 1);
  transport.frames[0].resolve(answer("first"));
  await pause(50);
  assert.deepEqual(shown.map(({ blob }) => blob), ["second"]);
});

test("a frame equal to the last one is skipped, a failed one is sent again", async () => {
  const { drawing, transport, store } = page();
  drawing.draw("one");
  await until(() => transport.frames.length === 1);
  transport.frames[0].resolve(answer("first"));
  drawing.draw("one");
  await until(() => store.state.counts.skipped === 1);
  assert.equal(transport.frames.length, 1);
  assert.equal(store.state.counts.shown, 1);
  drawing.draw("two");
  await until(() => transport.frames.length === 2);
  transport.frames[1].reject(Object.assign(new Error("overloaded"), { retryAfterS: 0.01 }));
  await until(() => transport.frames.length === 3);
  assert.equal(await transport.frames[2].blob.text(), "two");
});

test("one settling pass with all steps follows the live frames", async () => {
  const { drawing, transport, shown } = page({ steps: 12 });
  drawing.draw("one");
  await until(() => transport.frames.length === 1);
  assert.deepEqual([transport.frames[0].route, transport.frames[0].fields.steps], [LIVE_ROUTE, 4]);
  transport.frames[0].resolve(answer("quick"));
  await until(() => transport.frames.length === 2);
  assert.deepEqual([transport.frames[1].route, transport.frames[1].fields.steps], [REFINE_ROUTE, 12]);
  transport.frames[1].resolve(answer("whole"));
  await until(() => shown.length === 2);
  await pause(600);
  assert.equal(transport.frames.length, 2);
});

test("where the routes use different autoencoders, a frame of equal steps settles too", async () => {
  const { drawing, transport, store } = page({ autoencoder: "tiny" });
  drawing.draw("one");
  await until(() => transport.frames.length === 1);
  transport.frames[0].resolve(answer("quick"));
  await until(() => transport.frames.length === 2);
  assert.equal(transport.frames[1].route, REFINE_ROUTE);
  assert.equal(store.state.counts.skipped, 0);
});

test("frames wait for the connection, the model and the end of a pause", async () => {
  const { drawing, transport, store } = page({ isOpen: false });
  const { routeDefaults } = store.state;
  store.set({ routeDefaults: null });
  drawing.draw("one");
  for (const change of [{}, { isOpen: true }, { isOpen: false, routeDefaults }]) {
    store.set(change);
    await pause(120);
    assert.equal(transport.frames.length, 0);
  }
  store.set({ isOpen: true });
  await until(() => transport.frames.length === 1);
  transport.frames[0].resolve(answer("first"));
  store.set({ isPaused: true });
  drawing.draw("two");
  await pause(120);
  assert.equal(transport.frames.length, 1);
  store.set({ isPaused: false });
  await until(() => transport.frames.length === 2);
});

test("a frame that a pause meets while it is encoded is sent after the pause", async () => {
  const { drawing, transport, store } = page();
  const encode = [];
  drawing.toJpeg = () => new Promise((resolve) => encode.push(() => resolve(new Blob(["one"]))));
  drawing.draw("one");
  await until(() => encode.length === 1);
  store.set({ isPaused: true });
  encode[0]();
  await pause(120);
  assert.equal(transport.frames.length, 0);
  store.set({ isPaused: false });
  await until(() => encode.length === 2);
  encode[1]();
  await until(() => transport.frames.length === 1);
});

test("neither an older frame nor a settling one replaces a picture by button", async () => {
  const { drawing, transport, request, shown } = page({ steps: 12 });
  drawing.draw("one");
  await until(() => transport.frames.length === 1);
  await request(named("by button"));
  transport.frames[0].resolve(answer("late"));
  await pause(700);
  assert.deepEqual(shown.map(({ blob }) => blob), ["by button"]);
  assert.equal(transport.frames.length, 1);
  drawing.draw("two");
  await until(() => transport.frames.length === 2);
});

test("a request by button covers the changes before it", async () => {
  const { store, drawing, transport, request, shown } = page({ steps: 12 });
  drawing.draw("one");
  store.set({ seed: 5 }); // as an unlocked seed does before a request
  let finish;
  const requested = request(() => new Promise((resolve) => (finish = resolve)));
  await pause(150);
  assert.equal(transport.frames.length, 0);
  finish(answer("by button"));
  await requested;
  await pause(700);
  assert.deepEqual([transport.frames.length, shown.length], [0, 1]);
});

test("changes before a request of another picture are sent after it", async () => {
  const { drawing, transport, request } = page();
  drawing.draw("one");
  await request(named("upscaled"), { showsDrawing: false });
  await until(() => transport.frames.length === 1);
});

test("a frame that a request meets while it is encoded does not replace its picture", async () => {
  const { drawing, transport, request, shown } = page();
  let encoded;
  drawing.toJpeg = () => new Promise((resolve) => (encoded = resolve));
  drawing.draw("one");
  await until(() => encoded);
  await request(async () => {
    encoded(new Blob(["one"]));
    await until(() => transport.frames.length === 1);
    return answer("by button");
  });
  transport.frames[0].resolve(answer("late"));
  await pause(50);
  assert.deepEqual(shown.map(({ blob }) => blob), ["by button"]);
});

test("live frames wait for the last of two requests, and cover a failed one", async () => {
  const { drawing, transport, request } = page();
  drawing.draw("one");
  const ends = [];
  const open = () => request(() => new Promise((resolve, reject) => ends.push({ resolve, reject })));
  const [first, second] = [open(), open()];
  ends[0].reject(new Error("cancelled"));
  await assert.rejects(first);
  await pause(150);
  assert.equal(transport.frames.length, 0);
  ends[1].reject(new Error("failed"));
  await assert.rejects(second);
  await until(() => transport.frames.length === 1);
});

test("a burst of changes has at most two frames in flight, and its last change is shown", async () => {
  const { drawing, transport, shown, store } = page();
  let numAnswered = 0;
  const answerAll = async () => {
    const frames = transport.frames.slice(numAnswered);
    numAnswered += frames.length;
    for (const frame of frames) frame.resolve(answer(await frame.blob.text()));
  };
  for (let index = 0; index < 300; index += 1) {
    drawing.draw(`stroke ${index}`);
    if (index % 20 === 0) await pause(5);
    assert.ok(transport.frames.length - numAnswered <= 2);
    if (index % 60 === 59) await answerAll();
  }
  await until(() => {
    answerAll();
    return shown.at(-1)?.blob === "stroke 299";
  });
  assert.equal(store.state.counts.replaced, 0);
});
