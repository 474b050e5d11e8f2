// When to send the next frame. Knows no canvas, no socket and no clock: `now` is an argument.

export const COALESCE_MS = 64;
export const LONGEST_WAIT_MS = 3000;
export const SETTLE_MS = 400;
export const SLOW_SETTLE_MS = 1500; // a slow settling pass would delay the next stroke
export const MAX_IN_FLIGHT = 2; // one runs and one waits; the newest replaces the waiting one

/** Turns changes, answers and the state of the pen into the time of the next frame. */
export class Pacer {
  #changedFirst = null; // time of the first change that no frame covers yet
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

  /** A frame leaves. A live one needs a settling one after it. */
  sent(now, { settling = false } = {}) {
    this.#sentAt = now;
    this.#inFlight += 1;
    this.#needsSettling = !settling;
    if (!settling) this.#changedFirst = null;
  }

  /** A frame has its answer: a picture, an error or `replaced`. */
  answered() {
    this.#inFlight = Math.max(0, this.#inFlight - 1);
  }

  /** The server's own pace, in milliseconds: no setting fits a phone, a CPU and an H200. */
  pace({ intervalMs, pauseMs }) {
    if (Number.isFinite(intervalMs)) this.#intervalMs = intervalMs;
    if (Number.isFinite(pauseMs)) this.#pauseMs = pauseMs;
  }

  /** Another request covers all changes so far: no frame is needed for them. */
  covered() {
    this.#changedFirst = null;
    this.#needsSettling = false;
  }

  /** Return {kind, at} of the next frame, kind `live` or `settle`; null when there is none. */
  next() {
    if (this.#changedFirst !== null) {
      if (this.#inFlight >= MAX_IN_FLIGHT) return null;
      return { kind: "live", at: Math.max(this.#readyAt(), this.#sentAt + this.#intervalMs) };
    }
    if (!this.#needsSettling || this.#isPenDown || this.#inFlight) return null;
    const rest = this.#pauseMs ? SLOW_SETTLE_MS : SETTLE_MS;
    return { kind: "settle", at: this.#changedLast + rest };
  }

  #readyAt() {
    if (!this.#pauseMs) return this.#changedFirst + COALESCE_MS;
    const rested = this.#changedLast + Math.max(this.#pauseMs, COALESCE_MS);
    return Math.min(rested, this.#changedFirst + LONGEST_WAIT_MS);
  }
}
