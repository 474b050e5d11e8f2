// Sends live frames while the drawing changes.

import { LIVE_ROUTE, REFINE_ROUTE, SETTINGS, toFields } from "../panel/settings.js";
import { fingerprint } from "./fingerprint.js";
import { Pacer } from "./pacing.js";

/**
 * Frames go through `transport.send({route, fields, blob})`, a promise of the answer, once
 * `isOpen` and `routeDefaults` are in the store.
 *
 * Emits `answer` with the picture, `failure` with the error, and `settled` when the last picture
 * was final already. `counts` in the store are the frames sent, shown, replaced and skipped.
 */
export class Live {
  #store;
  #drawing;
  #transport;
  #nextId;
  #pacer = new Pacer();
  #timer = 0;
  #lastPrint = null;
  #holds = 0; // requests by button that are running

  constructor({ store, drawing, transport, nextId }) {
    this.#store = store;
    this.#drawing = drawing;
    this.#transport = transport;
    this.#nextId = nextId;
    store.on("drawn", () => this.#change());
    store.subscribe(Object.keys(SETTINGS), () => this.#change());
    store.subscribe(["isPaused"], ({ isPaused }) => isPaused || this.#change());
    store.subscribe(["isOpen", "routeDefaults"], () => this.#schedule());
    store.subscribe(["pace"], ({ pace }) => {
      this.#pacer.pace(pace);
      this.#schedule();
    });
    store.on("picture", ({ picture, isShown }) => picture.isFrame && isShown && this.#count("shown"));
  }

  /**
   * Run a request by button; live frames wait until it ends. Returns the picture with its id.
   *
   * A request that `showsDrawing` covers all changes so far. If it fails, live frames cover them.
   */
  async during(work, { showsDrawing = true } = {}) {
    this.#holds += 1;
    clearTimeout(this.#timer);
    if (showsDrawing) this.#pacer.covered();
    const id = this.#nextId();
    let isMade = false;
    try {
      const picture = await work();
      isMade = true;
      return { ...picture, id };
    } finally {
      this.#holds -= 1;
      if (!isMade && !this.#holds) this.#pacer.change(performance.now());
      this.#schedule();
    }
  }

  #change() {
    this.#pacer.change(performance.now());
    this.#pacer.pen(this.#store.state.isDrawing);
    this.#schedule();
  }

  #schedule() {
    clearTimeout(this.#timer);
    const { isPaused, isOpen, routeDefaults } = this.#store.state;
    const next = this.#pacer.next();
    if (!next || isPaused || this.#holds || !isOpen || !routeDefaults) return;
    this.#timer = setTimeout(() => this.#send(next.kind), Math.max(0, next.at - performance.now()));
  }

  async #send(kind) {
    const id = this.#nextId(); // before any wait: ids are in the order of what was seen
    const route = kind === "settle" ? REFINE_ROUTE : LIVE_ROUTE;
    const fields = toFields(this.#store.state, route);
    this.#pacer.sent(performance.now(), { settling: kind === "settle" });
    const blob = await this.#drawing.toJpeg();
    if (this.#store.state.isPaused) return this.#answered(); // all of it is sent after the pause
    const { [LIVE_ROUTE]: live, [REFINE_ROUTE]: refine } = this.#store.state.routeDefaults;
    const printed = live.autoencoder === refine.autoencoder ? fields : { ...fields, route };
    const print = fingerprint(new Uint8Array(await blob.arrayBuffer()), printed);
    if (print === this.#lastPrint) {
      this.#count("skipped");
      this.#answered();
      if (kind === "settle") this.#store.emit("settled");
      return;
    }
    this.#lastPrint = print;
    await this.#ask({ id, route, fields, blob });
  }

  async #ask({ id, route, fields, blob }) {
    this.#count("sent");
    this.#schedule();
    try {
      const answer = await this.#transport.send({ route, fields, blob });
      if (answer.isReplaced) this.#count("replaced");
      else {
        const files = { imageDataUrl: blob };
        this.#store.emit("answer", { ...answer, id, route, fields, files, isFrame: true });
      }
      this.#answered(answer);
    } catch (error) {
      this.#lastPrint = null;
      this.#store.emit("failure", error);
      this.#answered();
      if (error.retryAfterS) setTimeout(() => this.#change(), 1000 * error.retryAfterS);
    }
  }

  #answered({ meanMs, intervalMs, pauseMs } = {}) {
    this.#pacer.answered();
    if (intervalMs === undefined) this.#schedule();
    else this.#store.set({ pace: { meanMs, intervalMs, pauseMs } });
  }

  #count(name) {
    const { counts } = this.#store.state;
    this.#store.set({ counts: { ...counts, [name]: counts[name] + 1 } });
  }
}
