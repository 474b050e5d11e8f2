// Frames over HTTP, one at a time; the newest takes the place of the one that waits.

import { LIVE_ROUTE } from "./settings.js";

export class HttpTransport extends EventTarget {
  #api;
  isReady = false;

  constructor(api) {
    super();
    this.#api = api;
  }

  open() {
    this.isReady = true;
    this.dispatchEvent(new Event("ready"));
  }

  async send({ route, fields, blob }) {
    const started = performance.now();
    const answer = await this.#api.render(route, fields, { imageDataUrl: blob });
    const meanMs = performance.now() - started;
    if (route !== LIVE_ROUTE) return answer;
    return { ...answer, meanMs, intervalMs: 0, pauseMs: meanMs > 1500 ? 250 : 0 };
  }
}
