// Pictures by button: refine, inpaint and upscale, one at a time.

import {
  INPAINT_ROUTE, REFINE_ROUTE, UPSCALE_ROUTE, randomSeed, toFields,
} from "../panel/settings.js";

/** Emits `answer` with the picture, and `failure` with the error. */
export class Requests {
  #store;
  #api;
  #drawing;
  #live;
  #running = null;

  constructor({ store, api, drawing, live }) {
    this.#store = store;
    this.#api = api;
    this.#drawing = drawing;
    this.#live = live;
  }

  refine() {
    return this.#run(REFINE_ROUTE);
  }

  inpaint() {
    if (this.#drawing.hasMask) return this.#run(INPAINT_ROUTE);
    const message = "There is no mask. Press M and paint over the area to repaint, then Inpaint.";
    return this.#store.emit("failure", new Error(message));
  }

  upscale() {
    return this.#run(UPSCALE_ROUTE, { showsDrawing: !this.#store.state.picture });
  }

  /** Abort the running request. Returns whether there was one. */
  cancel() {
    this.#running?.abort();
    return this.#running !== null;
  }

  /** Return {route, fields, files}: inpainting while a mask is being painted, else refining. */
  current() {
    const isMasking = this.#store.state.layer === "mask" && this.#drawing.hasMask;
    return this.#request(isMasking ? INPAINT_ROUTE : REFINE_ROUTE);
  }

  async #request(route) {
    const { picture, limits } = this.#store.state;
    const fields = toFields(this.#store.state, route);
    if (route === INPAINT_ROUTE) {
      const layers = [this.#drawing.toPng(), this.#drawing.maskToPng()]; // lossless: the unmasked area stays
      const [imageDataUrl, maskDataUrl] = await Promise.all(layers);
      return { route, fields, files: { imageDataUrl, maskDataUrl } };
    }
    if (route === UPSCALE_ROUTE && picture) {
      const { width, height } = picture;
      const isServed = [width, height].every((side) => limits.width.enum.includes(side));
      const size = isServed ? { width, height } : {};
      return { route, fields: { ...fields, ...size }, files: { imageDataUrl: picture.blob } };
    }
    return { route, fields, files: { imageDataUrl: await this.#drawing.toJpeg() } };
  }

  async #run(route, options) {
    this.cancel();
    const running = new AbortController();
    this.#running = running;
    const { seedLocked, limits } = this.#store.state;
    if (!seedLocked) this.#store.set({ seed: randomSeed(limits) });
    try {
      const picture = await this.#live.during(async () => {
        const request = await this.#request(route);
        const answer = await this.#api.render(
          request.route, request.fields, request.files, running.signal,
        );
        return { ...answer, ...request };
      }, options);
      this.#store.emit("answer", picture);
    } catch (error) {
      this.#store.emit("failure", error);
    } finally {
      if (this.#running === running) this.#running = null;
    }
  }
}
