// Zoom by Ctrl and the wheel, pan by Space and a drag.

const SCALES = [0.25, 8];

/** Moves every `.sheet` of a stage by the same amount: drawing and result show the same place. */
export class Viewport {
  #stage;
  #isSpaceDown = false;
  #drag = null;
  #scale = 1;
  #x = 0;
  #y = 0;

  constructor(stage) {
    this.#stage = stage;
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.#down(event), { capture: true });
    stage.addEventListener("pointermove", (event) => this.#move(event));
    stage.addEventListener("pointerup", () => this.#release());
    stage.addEventListener("pointercancel", () => this.#release());
  }

  /** Whether a press pans instead of using the tool. */
  pans(event) {
    return this.#isSpaceDown || event.button === 1;
  }

  /** Pan by the next drag, while Space is down. */
  space(isDown) {
    this.#isSpaceDown = isDown;
    this.#stage.classList.toggle("can-pan", isDown);
  }

  fit() {
    this.#apply(1, 0, 0);
  }

  zoom(factor, atX = 0, atY = 0) {
    const scale = Math.min(SCALES[1], Math.max(SCALES[0], this.#scale * factor));
    const by = scale / this.#scale;
    this.#apply(scale, atX + (this.#x - atX) * by, atY + (this.#y - atY) * by);
  }

  #apply(scale, x, y) {
    this.#scale = scale;
    this.#x = x;
    this.#y = y;
    const { style } = this.#stage;
    style.setProperty("--scale", scale);
    style.setProperty("--pan-x", `${x}px`);
    style.setProperty("--pan-y", `${y}px`);
  }

  #wheel(event) {
    event.preventDefault();
    if (!(event.ctrlKey || event.metaKey)) {
      this.#apply(this.#scale, this.#x - event.deltaX, this.#y - event.deltaY);
      return;
    }
    const pane = (event.target.closest(".pane") ?? this.#stage).getBoundingClientRect();
    const x = event.clientX - pane.left - pane.width / 2;
    const y = event.clientY - pane.top - pane.height / 2;
    this.zoom(Math.exp(-event.deltaY / 300), x, y);
  }

  #down(event) {
    if (!this.pans(event)) return;
    event.preventDefault();
    this.#drag = { x: event.clientX - this.#x, y: event.clientY - this.#y };
    this.#stage.classList.add("is-panning");
    this.#stage.setPointerCapture(event.pointerId);
  }

  #move(event) {
    if (this.#drag) {
      this.#apply(this.#scale, event.clientX - this.#drag.x, event.clientY - this.#drag.y);
    }
  }

  #release() {
    this.#drag = null;
    this.#stage.classList.remove("is-panning");
  }
}
