// Stores the work while it is made, and restores it after a reload.

import { TOOLS } from "../drawing/toolbox.js";
import { SETTINGS } from "../panel/settings.js";
import { afterPause, loadWork, storeWork } from "./storage.js";

const PAUSE_MS = 400;

export class Autosave {
  #store;
  #drawing;
  #latest;
  #schedule = afterPause(() => this.#write(), PAUSE_MS);

  constructor({ store, drawing, latest }) {
    this.#store = store;
    this.#drawing = drawing;
    this.#latest = latest;
  }

  /** Restore the stored work; return whether there was any. */
  async restore() {
    const work = await loadWork();
    if (!work) return false;
    try {
      this.#store.set(pick(work.values, SETTINGS));
      this.#store.set(pick(work.tools, TOOLS));
      await this.#drawing.restore(work.layers);
      if (work.picture) await this.#latest.show(work.picture);
      return true;
    } catch {
      return false; // stored by another version, or broken: start afresh
    }
  }

  /** Store every change from now on. */
  watch() {
    this.#store.on("drawn", this.#schedule);
    const names = [...Object.keys(SETTINGS), ...Object.keys(TOOLS), "picture"];
    this.#store.subscribe(names, this.#schedule);
    // A hidden tab may be closed without notice: do not wait for the pause.
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.#write();
    });
  }

  async #write() {
    const { state } = this.#store;
    if (state.isDrawing) return this.#schedule();
    const layers = await this.#drawing.save();
    const { picture } = state;
    await storeWork({ values: pick(state, SETTINGS), tools: pick(state, TOOLS), layers, picture });
    document.documentElement.dataset.kept = Date.now();
    return undefined;
  }
}

function pick(values, names) {
  return Object.fromEntries(Object.keys(names).map((name) => [name, values[name]]));
}
