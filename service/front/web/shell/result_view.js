// The refined picture beside the drawing, over it (lens), or compared with it.

import { byId } from "./dom.js";

export const VIEWS = ["split", "lens", "compare"];

export class ResultView {
  canvas;
  #stage;

  constructor(store, { stage, canvas }) {
    this.#stage = stage;
    this.canvas = canvas;
    follow(byId("split-at"), stage, "--split");
    follow(byId("lens-at"), stage, "--lens");
    store.follow(["view"], ({ view }) => (stage.dataset.view = view));
    store.follow(["width", "height"], ({ width, height }) =>
      stage.style.setProperty("--ratio", width / height),
    );
    store.follow(["isDrawing"], ({ isDrawing }) => stage.classList.toggle("is-drawing", isDrawing));
    store.subscribe(["numRendering"], ({ numRendering }) =>
      stage.classList.toggle("is-busy", numRendering > 0),
    );
    store.subscribe(["picture"], ({ picture }) => (byId("caption").textContent = captionOf(picture)));
  }

  /** Draw a decoded picture. */
  draw(bitmap) {
    const { width, height } = bitmap;
    if (this.canvas.width !== width || this.canvas.height !== height) {
      Object.assign(this.canvas, { width, height });
    }
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    this.#stage.classList.add("has-result");
  }
}

/** Let a slider set a custom property of the stage, in percent. */
function follow(input, stage, name) {
  const apply = () => stage.style.setProperty(name, `${input.value}%`);
  input.addEventListener("input", apply);
  apply();
}

function captionOf({ seed, stepsRun, width, height }) {
  return `${width} × ${height} · ${stepsRun} steps · seed ${seed}`;
}
