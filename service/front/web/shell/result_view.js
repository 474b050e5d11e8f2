// The refined picture: the last one that came, beside the drawing, over it, or cut against it.

export const VIEWS = ["split", "lens", "compare"];

export class View {
  #stage;
  #canvas;
  #caption;
  #numBusy = 0;
  #numTaken = 0;
  #shown = 0; // which of those taken
  picture = null; // {blob, route, fields, files, seed, stepsRun, stages}

  constructor({ stage, canvas, caption, split, lens }) {
    this.#stage = stage;
    this.#canvas = canvas;
    this.#caption = caption;
    const follow = (input, name) => {
      const apply = () => stage.style.setProperty(name, `${input.value}%`);
      input.addEventListener("input", apply);
      apply();
    };
    follow(split, "--split");
    follow(lens, "--lens");
  }

  get mode() {
    return this.#stage.dataset.view;
  }

  set mode(mode) {
    if (VIEWS.includes(mode)) this.#stage.dataset.view = mode;
  }

  /** Show a picture. The one before it stays until this one has been decoded. */
  async show(picture) {
    this.#numTaken += 1;
    const turn = this.#numTaken;
    const bitmap = await createImageBitmap(picture.blob);
    if (turn < this.#shown) return bitmap.close(); // a newer one was decoded sooner
    this.#shown = turn;
    this.picture = picture;
    const { width, height } = bitmap;
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      Object.assign(this.#canvas, { width, height });
    }
    this.#canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    this.#stage.classList.add("has-result");
    this.#caption.textContent = captionOf(picture, width, height);
  }

  /** Show that something is on its way, for as long as a promise is open. */
  async busy(promise) {
    this.#numBusy += 1;
    this.#stage.classList.add("is-busy");
    try {
      return await promise;
    } finally {
      this.#numBusy -= 1;
      this.#stage.classList.toggle("is-busy", this.#numBusy > 0);
    }
  }

  get size() {
    return { width: this.#canvas.width, height: this.#canvas.height };
  }

  /** The picture as it is shown, to be drawn with. */
  toCanvas() {
    return this.picture ? this.#canvas : null;
  }
}

function captionOf({ seed, stepsRun }, width, height) {
  return `${width} × ${height} · ${stepsRun} steps · seed ${seed}`;
}
