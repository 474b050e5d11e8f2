// The work in hand: kept while it is made, and taken up again after a reload.

import { afterPause, keepWork, keptWork } from "./storage.js";

const KEEP_MS = 400;

export class Work {
  #drawing;
  #settings;
  #toolbox;
  #view;
  #keep = afterPause(() => this.#write(), KEEP_MS);

  constructor({ drawing, settings, toolbox, view }) {
    this.#drawing = drawing;
    this.#settings = settings;
    this.#toolbox = toolbox;
    this.#view = view;
  }

  /** Take up what was kept; return whether there was anything. */
  async restore() {
    const kept = await keptWork();
    if (!kept) return false;
    try {
      this.#settings.set(kept.values);
      this.#toolbox.set(kept.tools);
      await this.#drawing.restore(kept.layers);
      if (kept.picture) await this.#view.show(kept.picture);
      return true;
    } catch {
      return false; // kept by another version, or broken: begin anew
    }
  }

  /** Keep whatever changes from now on. */
  watch() {
    for (const source of [this.#drawing, this.#settings, this.#toolbox]) {
      source.addEventListener("change", this.#keep);
    }
    // A tab that goes may not come back: the pause is not waited for.
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.#write();
    });
  }

  changed() {
    this.#keep();
  }

  async #write() {
    if (this.#drawing.isDrawing) return this.#keep();
    const layers = await this.#drawing.save();
    const { values } = this.#settings;
    await keepWork({ values, tools: this.#toolbox.state, layers, picture: this.#view.picture });
    document.documentElement.dataset.kept = Date.now(); // for whoever waits for it
    return undefined;
  }
}
