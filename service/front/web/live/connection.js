// Frames over the realtime socket, each a promise of its answer.

import { ApiError, sentence } from "../io/api.js";
import { Realtime } from "./realtime.js";

const RETRY_DENIED_MS = 1000;
const STATES = {
  open: { state: "connected", text: "connected" },
  connecting: { state: "connecting", text: "connecting" },
  waiting: { state: "reconnecting", text: "reconnecting" },
};

/**
 * Sets `connection`, `isOpen`, `pending` and `pace` of the store. Emits `serving` when the engine
 * takes requests, `unreachable` when no socket opens, `locked` and `failure`. Opens on `key`.
 *
 * A ticket opens the socket: the key itself never travels on it.
 */
export class Connection {
  #store;
  #api;
  #hasKey;
  #realtime;
  #waiting = new Map(); // {resolve, reject} of the frames without an answer, by the client's id

  constructor({ store, api, hasKey, url = new URL("v1/realtime", location.href.replace(/^http/, "ws")) }) {
    this.#store = store;
    this.#api = api;
    this.#hasKey = hasKey;
    const authenticate = async () => (hasKey() ? { ticket: await api.ticket() } : {});
    this.#realtime = new Realtime({ url, authenticate });
    const on = (name, handle) =>
      this.#realtime.addEventListener(name, ({ detail }) => handle(detail));
    on("state", (detail) => this.#onState(detail));
    on("ready", ({ meanMs, intervalMs, pauseMs, ...health }) => {
      store.set({ pace: { meanMs, intervalMs, pauseMs } });
      this.#onHealth(health);
    });
    on("status", (health) => this.#onHealth(health));
    on("result", ({ id, files: [blob], ...answer }) => this.#take(id)?.resolve({ ...answer, blob }));
    on("replaced", ({ id }) => this.#take(id)?.resolve({ isReplaced: true }));
    on("error", (detail) => this.#onError(detail));
    store.on("key", () => this.open());
  }

  open() {
    this.#realtime.connect();
  }

  /** Send a frame. Resolves to {blob, seed, stepsRun, stages, ...} or {isReplaced: true}. */
  send({ route, fields, blob }) {
    return new Promise((resolve, reject) => {
      const id = this.#realtime.send({ route, ...fields }, blob);
      this.#waiting.set(id, { resolve, reject });
    });
  }

  #onState({ state, reason }) {
    this.#store.set({ isOpen: state === "open" });
    if (state === "denied") return this.#onDenied();
    if (state === "waiting") this.#store.emit("unreachable");
    if (state === "open") return undefined; // `ready` follows with the engine's health
    this.#store.set({ connection: STATES[state] ?? { state: "error", text: reason ?? "closed" } });
    return undefined;
  }

  #onHealth({ ready, reason, pending }) {
    const text = ready ? "connected" : "loading model";
    this.#store.set({ pending, connection: { state: ready ? "connected" : "loading", text } });
    if (ready) this.#store.emit("serving");
    else this.#store.emit("say", reason);
  }

  /** A ticket is valid only at the front that issued it. A load balancer may have chosen another. */
  async #onDenied() {
    if (!this.#hasKey()) return this.#store.emit("locked");
    this.#store.set({ connection: STATES.waiting });
    await this.#api.model().catch(() => {}); // a refused key locks the page here
    if (this.#hasKey()) setTimeout(() => this.open(), RETRY_DENIED_MS);
    return undefined;
  }

  #onError({ id, error, ...rest }) {
    const failure = new ApiError(sentence(error), rest);
    if (id === undefined) this.#store.emit("failure", failure);
    else this.#take(id)?.reject(failure);
  }

  #take(id) {
    const frame = this.#waiting.get(id);
    this.#waiting.delete(id);
    return frame;
  }
}
