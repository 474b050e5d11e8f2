// Tests the page's client on a fake socket and on a real server
// (REFINE_URL, REFINE_KEY). Run by tests/front/realtime/test_javascript_client.py.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Realtime } from "../../../service/front/web/live/realtime.js";

class FakeSocket {
  static all = [];
  bufferedAmount = 0;
  sent = [];

  constructor(url) {
    this.url = url;
    FakeSocket.all.push(this);
  }

  send(data) {
    this.sent.push(typeof data === "string" ? JSON.parse(data) : data);
  }

  close() {}

  receive(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }

  result(id) {
    this.receive({ type: "result", id, pictures: 1, format: "jpeg" });
    this.onmessage({ data: new Uint8Array([id]).buffer });
  }

  frames() {
    return this.sent.filter(({ type }) => type === "frame").map(({ id }) => id);
  }
}

function client(options = {}) {
  FakeSocket.all = [];
  const live = new Realtime({ url: "ws://test", WebSocket: FakeSocket, ...options });
  const events = [];
  for (const type of ["state", "ready", "status", "result", "replaced", "error"]) {
    live.addEventListener(type, ({ detail }) => events.push([type, detail]));
  }
  const of = (wanted) => events.filter(([type]) => type === wanted).map(([, detail]) => detail);
  return { live, of };
}

async function opened(options) {
  const { live, of } = client(options);
  live.connect();
  const [socket] = FakeSocket.all;
  await socket.onopen();
  socket.receive({ type: "ready" });
  return { live, of, socket };
}

const until = async (condition) => {
  for (let tries = 0; !condition(); tries += 1) {
    assert.ok(tries < 1000, "the condition did not become true");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
};

test("each connection asks for credentials, and no frame leaves before they are accepted", async () => {
  let number = 0;
  const { live } = client({ authenticate: async () => ({ ticket: `${++number}` }) });
  live.connect();
  live.send({ prompt: "a" });
  const [first] = FakeSocket.all;
  await first.onopen();
  assert.deepEqual(first.sent, [{ type: "hello", ticket: "1" }]);
  first.onclose({ code: 1006 });
  await until(() => FakeSocket.all.length === 2);
  await FakeSocket.all[1].onopen();
  assert.deepEqual(FakeSocket.all[1].sent, [{ type: "hello", ticket: "2" }]);
  FakeSocket.all[1].receive({ type: "ready" });
  assert.deepEqual(FakeSocket.all[1].frames(), [1]);
  live.close();
});

test("without a ticket it sends nothing and connects again", async () => {
  const { live } = client({ authenticate: async () => Promise.reject(new Error("502")) });
  live.connect();
  const [socket] = FakeSocket.all;
  let isClosed = false;
  socket.close = () => (isClosed = true);
  await socket.onopen();
  assert.ok(isClosed);
  assert.deepEqual(socket.sent, []);
  socket.onclose({ code: 1005, reason: "" });
  assert.equal(live.state, "waiting");
  live.close();
});

test("a frame that cannot be sent is replaced by the next one, and reported", async () => {
  const { live, of } = client();
  live.connect();
  const [socket] = FakeSocket.all;
  await socket.onopen();
  for (const prompt of ["a", "b", "c"]) live.send({ prompt });
  socket.receive({ type: "ready" });
  assert.deepEqual(socket.frames(), [3]);
  assert.deepEqual(of("replaced").map(({ id, by }) => [id, by]), [[1, 2], [2, 3]]);
  socket.bufferedAmount = 1; // a slow line
  live.send({ prompt: "d" });
  live.send({ prompt: "e" });
  assert.deepEqual(socket.frames(), [3]);
  socket.bufferedAmount = 0;
  await until(() => socket.frames().length === 2);
  assert.deepEqual(socket.frames(), [3, 5]);
  live.close();
});

test("a picture follows its frame, and its result holds a Blob", async () => {
  const { live, of, socket } = await opened();
  const file = new Blob([new Uint8Array([1, 2, 3])]);
  const id = live.send({ prompt: "a" }, file);
  assert.deepEqual(socket.sent.slice(1), [{ type: "frame", id, prompt: "a", binary: true }, file]);
  socket.receive({ type: "result", id, pictures: 2, format: "png", seed: 7 });
  socket.onmessage({ data: new Uint8Array([1]).buffer });
  assert.equal(of("result").length, 0);
  socket.onmessage({ data: new Uint8Array([2]).buffer });
  const [{ files, seed }] = of("result");
  assert.deepEqual([seed, files.length, files[1].type, files[1].size], [7, 2, "image/png", 1]);
  live.close();
});

test("after a lost connection the newest frame is sent again, and the others are replaced", async () => {
  const { live, of, socket } = await opened();
  for (const prompt of ["a", "b", "c"]) live.send({ prompt });
  socket.result(1);
  socket.onclose({ code: 1012 });
  assert.equal(live.state, "waiting");
  await until(() => FakeSocket.all.length === 2);
  const [, second] = FakeSocket.all;
  await second.onopen();
  second.receive({ type: "ready" });
  assert.deepEqual(second.frames(), [3]);
  assert.deepEqual(of("replaced").map(({ id, by }) => [id, by]), [[2, 3]]);
  socket.result(2); // the last words of the old connection
  second.result(3);
  assert.deepEqual(of("result").map(({ id }) => id), [1, 3]);
  live.close();
});

test("a refused key is final until `connect` tries another one", async () => {
  const { live, of, socket } = await opened();
  socket.onclose({ code: 4401, reason: "no" });
  assert.deepEqual(of("state").at(-1), { state: "denied", code: 4401, reason: "no" });
  live.connect();
  assert.equal(FakeSocket.all.length, 2);
  live.close();
  assert.equal(live.state, "closed");
});

test("a frame that ends the connection by its size is not sent again", async () => {
  const { live, of, socket } = await opened();
  const id = live.send({ prompt: "a" });
  socket.onclose({ code: 1009, reason: "too big" });
  assert.equal(live.state, "closed");
  assert.deepEqual(of("error").map((detail) => detail.id), [id]);
});

test("a real server answers every frame, and the last one with its picture", async (context) => {
  const url = process.env.REFINE_URL;
  const { live, of } = client({
    url, WebSocket: globalThis.WebSocket, authenticate: async () => ({ key: process.env.REFINE_KEY }),
  });
  context.after(() => live.close());
  live.connect();
  const picture = Buffer.from(process.env.REFINE_PICTURE, "base64");
  await until(() => live.state === "open");
  let last;
  for (let seed = 0; seed < 20; seed += 1) {
    last = live.send({ prompt: "a boat", seed, route: "lcm-instant-refine" }, picture);
    if (seed % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await until(() => of("result").at(-1)?.id === last);
  live.send({ prompt: "a boat", steps: 99 }, picture);
  await until(() => of("error").length === 1);
  assert.equal(of("result").at(-1).seed, 19);
  assert.equal(of("result").at(-1).files[0].type, "image/jpeg");
  assert.equal(of("error")[0].path, "$.steps");
  assert.equal(of("result").length + of("replaced").length, 20);
  const wrong = client({ url, WebSocket: globalThis.WebSocket, authenticate: () => ({ key: "wrong" }) });
  wrong.live.connect();
  await until(() => wrong.live.state === "denied");
});
