// Frames over the realtime socket, each a promise of its answer.

import { ApiError, sentence } from "../io/api.js";
import { Realtime } from "./realtime.js";

/**
 * Tells `state` with {detail: {state, text}}, `ready` and `status` as the service does.
 *
 * The socket is opened by a ticket, so that the key itself never travels on it.
 */
export class Connection extends EventTarget {
  #realtime;
  #waiting = new Map(); // {resolve, reject} of the frames without an answer, by the client's id

  constructor({ api, hasKey, url = new URL("v1/realtime", location.href.replace(/^http/, "ws")) }) {
    super();
    const authenticate = async () => (hasKey() ? { ticket: await api.ticket() } : {});
    this.#realtime = new Realtime({ url, authenticate });
    const on = (name, handle) =>
      this.#realtime.addEventListener(name, ({ detail }) => handle(detail));
    on("state", (detail) => this.#onState(detail));
    on("ready", (detail) => this.#tell("ready", detail));
    on("status", (detail) => this.#tell("status", detail));
    on("result", (detail) => this.#onResult(detail));
    on("replaced", ({ id }) => this.#take(id)?.resolve({ isReplaced: true }));
    on("error", (detail) => this.#onError(detail));
  }

  get isReady() {
    return this.#realtime.state === "open";
  }

  open() {
    this.#realtime.connect();
  }

  /** Ask for a picture; resolves to {blob, seed, stepsRun, stages, ...} or {isReplaced: true}. */
  send({ route, fields, blob }) {
    return new Promise((resolve, reject) => {
      const id = this.#realtime.send({ route, ...fields }, blob);
      this.#waiting.set(id, { resolve, reject });
    });
  }

  #onState({ state, reason }) {
    const texts = { open: "connected", connecting: "connecting", waiting: "reconnecting" };
    const name = texts[state] ?? (state === "denied" ? "locked" : "error");
    this.#tell("state", { state: name, text: texts[state] ?? reason ?? "closed" });
  }

  #onResult({ id, files: [blob], ...answer }) {
    this.#take(id)?.resolve({ ...answer, blob });
    // Whatever is older will not be shown any more, should it come at all.
    for (const older of this.#waiting.keys()) {
      if (older < id) this.#take(older).resolve({ isReplaced: true });
    }
  }

  #onError({ id, error, ...rest }) {
    const failure = new ApiError(sentence(error), rest);
    if (id === undefined) this.#tell("failure", failure);
    else this.#take(id)?.reject(failure);
  }

  #take(id) {
    const frame = this.#waiting.get(id);
    this.#waiting.delete(id);
    return frame;
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
