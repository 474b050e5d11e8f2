// When to send the next frame. Knows no canvas, no socket and no clock: now is an argument.

export const COALESCE_MS = 64;
export const LONGEST_WAIT_MS = 3000;
export const SETTLE_MS = 400;
export const SLOW_SETTLE_MS = 1500; // a settling pass that takes long had better not be in the way
export const MAX_IN_FLIGHT = 2; // one runs and one waits, which the newest replaces

/** Turns changes, answers and the state of the pen into the time of the next frame. */
export class Pacer {
  #changedFirst = null; // of the changes that no frame holds yet
  #changedLast = -Infinity;
  #sentAt = -Infinity;
  #inFlight = 0;
  #intervalMs = 0;
  #pauseMs = 0;
  #isPenDown = false;
  #needsSettling = false;

  change(now) {
    this.#changedFirst ??= now;
    this.#changedLast = now;
  }

  pen(isDown) {
    this.#isPenDown = isDown;
  }

  /** A frame leaves. After a live one, a settling one is owed. */
  sent(now, { settling = false } = {}) {
    this.#sentAt = now;
    this.#inFlight += 1;
    this.#needsSettling = !settling;
    if (!settling) this.#changedFirst = null;
  }

  /** A frame has its answer, whatever it is. */
  answered() {
    this.#inFlight = Math.max(0, this.#inFlight - 1);
  }

  /** The server tells its own pace: no setting fits a phone, a CPU and an H200. */
  pace({ intervalMs, pauseMs }) {
    if (Number.isFinite(intervalMs)) this.#intervalMs = intervalMs;
    if (Number.isFinite(pauseMs)) this.#pauseMs = pauseMs;
  }

  /** All that has changed so far is in a picture that was asked for otherwise: no frame is owed. */
  taken() {
    this.#changedFirst = null;
    this.#needsSettling = false;
  }

  /** Return {kind, at} of the frame that is due next, kind `live` or `settle`, or null. */
  next() {
    if (this.#changedFirst !== null) {
      if (this.#inFlight >= MAX_IN_FLIGHT) return null;
      return { kind: "live", at: Math.max(this.#ripe(), this.#sentAt + this.#intervalMs) };
    }
    if (!this.#needsSettling || this.#isPenDown || this.#inFlight) return null;
    const rest = this.#pauseMs ? SLOW_SETTLE_MS : SETTLE_MS;
    return { kind: "settle", at: this.#changedLast + rest };
  }

  #ripe() {
    if (!this.#pauseMs) return this.#changedFirst + COALESCE_MS;
    const rested = this.#changedLast + Math.max(this.#pauseMs, COALESCE_MS);
    return Math.min(rested, this.#changedFirst + LONGEST_WAIT_MS);
  }
}

/** Lets pictures through in the order that they were asked for: never an older over a newer one. */
export class Order {
  #newest = -1;

  admits(id) {
    if (id < this.#newest) return false;
    this.#newest = id;
    return true;
  }
}
