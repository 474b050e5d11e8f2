// A client of /v1/realtime; docs/realtime.md has the protocol.
//
//   const live = new Realtime({ authenticate: async () => ({ key }) });
//   live.addEventListener("result", ({ detail }) => show(detail.id, detail.files[0]));
//   live.connect();
//   live.send({ prompt: "a boat", seed: 7 }, blob);
//
// Events, each with a `detail`: `state` ({ state, code, reason }), and the server's messages by type
// (`ready`, `status`, `result`, `replaced`, `error`). A result has its pictures as Blobs in `files`.
// The ids of results rise: the service never sends an older picture after a newer one.

const FIRST_BACKOFF_MS = 250;
const LAST_BACKOFF_MS = 10_000;
const DRAIN_POLL_MS = 20; // between two looks at a full send buffer

export class Realtime extends EventTarget {
  #url;
  #authenticate;
  #WebSocket;
  #socket = null;
  #timer = null; // to connect again
  #flushTimer = null;
  #backoffMs = FIRST_BACKOFF_MS;
  #lastId = 0;
  #unsent = null; // the newest frame that was not sent yet
  #unanswered = new Map(); // frames that were sent, by id
  #result = null; // a result that waits for its files

  /** @param authenticate returns { key }, { ticket } or {}; called for every connection. */
  constructor({ url = ownUrl(), authenticate = () => ({}), WebSocket = globalThis.WebSocket } = {}) {
    super();
    this.#url = url;
    this.#authenticate = authenticate;
    this.#WebSocket = WebSocket;
    this.state = "closed"; // or connecting, open, waiting (to connect again), denied
  }

  connect() {
    clearTimeout(this.#timer);
    if (this.#socket) return;
    const socket = new this.#WebSocket(this.#url);
    socket.binaryType = "arraybuffer";
    socket.onopen = async () => {
      const credentials = await Promise.resolve(this.#authenticate()).catch(() => null);
      if (!credentials) socket.close(); // and connect again later
      else if (socket === this.#socket) socket.send(JSON.stringify({ type: "hello", ...credentials }));
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) typeof data === "string" ? this.#read(data) : this.#readFile(data);
    };
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#onClose(code, reason);
    this.#socket = socket;
    this.#enter("connecting");
  }

  close() {
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
    this.#socket = null;
    this.#enter("closed");
  }

  /** Send a frame; return its id. A frame that cannot be sent yet is replaced by the next one. */
  send(fields, file = null) {
    const frame = { id: ++this.#lastId, fields, file };
    if (this.#unsent) this.#emit("replaced", { id: this.#unsent.id, by: frame.id });
    this.#unsent = frame;
    this.#flush();
    return frame.id;
  }

  #flush() {
    clearTimeout(this.#flushTimer);
    const frame = this.#unsent;
    if (!frame || this.state !== "open") return;
    if (this.#socket.bufferedAmount > 0) { // a slow line: the newest frame goes next
      this.#flushTimer = setTimeout(() => this.#flush(), DRAIN_POLL_MS);
      return;
    }
    this.#unsent = null;
    this.#unanswered.set(frame.id, frame);
    const header = { type: "frame", id: frame.id, ...frame.fields, ...(frame.file && { binary: true }) };
    this.#socket.send(JSON.stringify(header));
    if (frame.file) this.#socket.send(frame.file);
  }

  #read(text) {
    const message = JSON.parse(text);
    if (message.type === "ready") {
      this.#backoffMs = FIRST_BACKOFF_MS;
      this.#enter("open");
      this.#emit("ready", message);
      this.#flush();
    } else if (message.type === "result") {
      this.#result = { ...message, files: [] };
    } else {
      if (message.id !== undefined) this.#unanswered.delete(message.id);
      this.#emit(message.type, message);
    }
  }

  #readFile(data) {
    const result = this.#result;
    if (!result) return;
    result.files.push(new Blob([data], { type: `image/${result.format}` }));
    if (result.files.length < result.pictures) return;
    this.#result = null;
    this.#unanswered.delete(result.id);
    this.#emit("result", result);
  }

  #onClose(code, reason) {
    this.#socket = this.#result = null;
    this.#requeue();
    if (code === 4401) return this.#enter("denied", { code, reason });
    if (code === 1008 || code === 1009) return this.#fail(code, reason);
    this.#enter("waiting", { code, reason });
    this.#timer = setTimeout(() => this.connect(), this.#backoffMs * (0.5 + Math.random() / 2));
    this.#backoffMs = Math.min(2 * this.#backoffMs, LAST_BACKOFF_MS);
  }

  /** Frames without an answer are lost: the newest one is sent again and replaces the others. */
  #requeue() {
    const lost = [...this.#unanswered.values(), ...(this.#unsent ? [this.#unsent] : [])];
    this.#unanswered.clear();
    this.#unsent = lost.pop() ?? null;
    for (const { id } of lost) this.#emit("replaced", { id, by: this.#unsent.id });
  }

  /** The service refused the frame itself: sending it again would fail again. */
  #fail(code, reason) {
    if (this.#unsent) this.#emit("error", { id: this.#unsent.id, code: "bad-request", error: reason });
    this.#unsent = null;
    this.#enter("closed", { code, reason });
  }

  #enter(state, detail = {}) {
    this.state = state;
    this.#emit("state", { state, ...detail });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

const ownUrl = () => new URL("/v1/realtime", location.href.replace(/^http/, "ws")).href;
