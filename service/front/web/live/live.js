// Live painting: sends frames while the drawing changes, and hands on the pictures in order.

import { fingerprint } from "./fingerprint.js";
import { Order, Pacer } from "./pacing.js";
import { LIVE_ROUTE, REFINE_ROUTE, toFields } from "../panel/settings.js";

/**
 * Frames go through `transport.send({route, fields, blob})`, a promise of the answer.
 *
 * Tells `picture` with {detail: picture}, `failure` with {detail: error}, `settled` where the last
 * picture was final already, and `frame` of each count.
 */
export class Live extends EventTarget {
  #drawing;
  #settings;
  #transport;
  #pacer = new Pacer();
  #order = new Order();
  #timer = 0;
  #lastId = Date.now(); // rises over reloads and reconnections alike
  #lastPrint = null;
  #holds = 0; // of pictures that are being asked for by another way
  isPaused = false;
  routesDiffer = false; // whether a frame without more steps looks otherwise on the refining route
  counts = { sent: 0, shown: 0, replaced: 0, skipped: 0 };

  constructor({ drawing, settings, transport }) {
    super();
    this.#drawing = drawing;
    this.#settings = settings;
    this.#transport = transport;
    drawing.addEventListener("change", () => this.change());
    settings.addEventListener("change", () => this.change());
    transport.addEventListener("ready", ({ detail }) => this.#onPace(detail));
  }

  /** Something has changed that a picture depends on. */
  change() {
    this.#pacer.change(performance.now());
    this.#pacer.pen(this.#drawing.isDrawing);
    this.#schedule();
  }

  pause(isPaused) {
    this.isPaused = isPaused;
    if (!isPaused) this.change();
  }

  /**
   * Ask for a picture by another way, while live frames wait; older pictures give way to it.
   *
   * What has changed until now is its to show, if it `showsDrawing`. Where it fails, live frames do.
   */
  async during(work, { showsDrawing = true } = {}) {
    this.#holds += 1;
    clearTimeout(this.#timer);
    if (showsDrawing) this.#pacer.taken();
    const id = this.#nextId();
    let isMade = false;
    try {
      const picture = await work();
      isMade = true;
      return { picture, isNewest: this.#order.admits(id) };
    } finally {
      this.#holds -= 1;
      if (!isMade && !this.#holds) this.#pacer.change(performance.now());
      this.#schedule();
    }
  }

  #nextId() {
    this.#lastId += 1;
    return this.#lastId;
  }

  #schedule() {
    clearTimeout(this.#timer);
    const next = this.#pacer.next();
    if (!next || this.isPaused || this.#holds || !this.#transport.isReady) return;
    this.#timer = setTimeout(() => this.#send(next.kind), Math.max(0, next.at - performance.now()));
  }

  async #send(kind) {
    const id = this.#nextId(); // before anything is waited for: ids are in the order of what was seen
    const route = kind === "settle" ? REFINE_ROUTE : LIVE_ROUTE;
    const fields = toFields(this.#settings.values, route);
    this.#pacer.sent(performance.now(), { settling: kind === "settle" });
    const blob = await this.#drawing.toJpeg();
    if (this.isPaused) return this.#answered(); // meanwhile; once that ends, all is sent anew
    const told = this.routesDiffer ? { ...fields, route } : fields;
    const print = fingerprint(new Uint8Array(await blob.arrayBuffer()), told);
    if (print === this.#lastPrint) {
      this.#count("skipped");
      this.#answered();
      if (kind === "settle") this.dispatchEvent(new Event("settled"));
      return;
    }
    this.#lastPrint = print;
    await this.#ask({ id, route, fields, blob });
  }

  async #ask(frame) {
    this.#count("sent");
    this.#schedule();
    try {
      this.#take(frame, await this.#transport.send(frame));
    } catch (error) {
      this.#fail(error);
    }
  }

  #take({ id, route, fields, blob }, answer) {
    if (answer.isReplaced) this.#count("replaced");
    else if (this.#order.admits(id)) {
      this.#count("shown");
      const files = { imageDataUrl: blob };
      const picture = { ...answer, id, route, fields, files };
      this.dispatchEvent(new CustomEvent("picture", { detail: picture }));
    }
    this.#answered(answer);
  }

  #fail(error) {
    this.#lastPrint = null;
    this.dispatchEvent(new CustomEvent("failure", { detail: error }));
    this.#answered();
    if (error.retryAfterS) setTimeout(() => this.change(), 1000 * error.retryAfterS);
  }

  #answered(pace = {}) {
    this.#pacer.answered();
    this.#onPace(pace);
  }

  #onPace(pace) {
    this.#pacer.pace(pace);
    this.#schedule();
  }

  #count(name) {
    this.counts[name] += 1;
    this.dispatchEvent(new Event("frame"));
  }
}
