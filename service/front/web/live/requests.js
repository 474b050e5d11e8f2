// Pictures that are asked for by a button: refine, inpaint and upscale, one at a time.

import {
  INPAINT_ROUTE, REFINE_ROUTE, SIDES, UPSCALE_ROUTE, randomSeed, toFields,
} from "../panel/settings.js";

/** Calls `onPicture(picture, isNewest)` and `onError(error)`, which who wires it sets. */
export class Jobs {
  onPicture = () => {};
  onError = () => {};
  #api;
  #drawing;
  #settings;
  #live;
  #view;
  #running = null;

  constructor({ api, drawing, settings, live, view }) {
    this.#api = api;
    this.#drawing = drawing;
    this.#settings = settings;
    this.#live = live;
    this.#view = view;
  }

  refine() {
    return this.#run(() => this.request(REFINE_ROUTE));
  }

  /** Repaint what is masked. Without a mask there is nothing to do: says so. */
  inpaint() {
    if (!this.#drawing.hasMask) {
      this.onError(new Error("Paint a mask first: press M, and cover what shall be repainted."));
      return undefined;
    }
    return this.#run(() => this.request(INPAINT_ROUTE));
  }

  upscale() {
    return this.#run(() => this.request(UPSCALE_ROUTE), { showsDrawing: !this.#view.picture });
  }

  /** Give up what runs. Returns whether anything did. */
  cancel() {
    if (!this.#running) return false;
    this.#running.abort();
    return true;
  }

  /** What would be asked for now: {route, fields, files}. */
  async request(route) {
    const fields = toFields(this.#settings.values, route);
    if (route === UPSCALE_ROUTE) return this.#upscaleRequest(route, fields);
    if (route !== INPAINT_ROUTE) {
      return { route, fields, files: { imageDataUrl: await this.#drawing.toJpeg() } };
    }
    // Without loss: what the mask leaves stays as it is, to the pixel.
    const [imageDataUrl, maskDataUrl] = await Promise.all([
      this.#drawing.toPng(),
      this.#drawing.maskToPng(),
    ]);
    return { route, fields, files: { imageDataUrl, maskDataUrl } };
  }

  /** The refined picture is enlarged where there is one, else the drawing. */
  async #upscaleRequest(route, fields) {
    const { picture } = this.#view;
    if (!picture) return { route, fields, files: { imageDataUrl: await this.#drawing.toJpeg() } };
    const { width, height } = this.#view.size;
    const isServed = SIDES.includes(width) && SIDES.includes(height);
    const size = isServed ? { width, height } : {};
    return { route, fields: { ...fields, ...size }, files: { imageDataUrl: picture.blob } };
  }

  async #run(prepare, options) {
    this.cancel();
    const running = new AbortController();
    this.#running = running;
    if (!this.#settings.values.seedLocked) this.#settings.set({ seed: randomSeed() });
    try {
      await this.#view.busy(this.#make(prepare, running.signal, options));
    } catch (error) {
      this.onError(error);
    } finally {
      if (this.#running === running) this.#running = null;
    }
  }

  async #make(prepare, signal, options) {
    const { picture, isNewest } = await this.#live.during(async () => {
      const request = await prepare();
      const answer = await this.#api.render(request.route, request.fields, request.files, signal);
      return { ...answer, ...request };
    }, options);
    this.onPicture(picture, isNewest);
  }
}
