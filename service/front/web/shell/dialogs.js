// The examples, the list of keys, and how dialogs close.

import { byId, make } from "./dom.js";
import { DOODLES, drawDoodle } from "../drawing/doodles.js";
import { KEY_LIST } from "./keys.js";

const THUMBNAIL = 184;

/** Fill the sheet of examples; emit `example` with the doodle that is chosen. */
export function buildExamples(store) {
  const buttons = DOODLES.map((doodle) => {
    const canvas = make("canvas", { width: THUMBNAIL, height: THUMBNAIL });
    const context = canvas.getContext("2d");
    context.fillStyle = doodle.background;
    context.fillRect(0, 0, THUMBNAIL, THUMBNAIL);
    drawDoodle(context, doodle, THUMBNAIL, THUMBNAIL);
    const button = make("button", { type: "button", title: doodle.prompt }, [canvas, doodle.name]);
    button.addEventListener("click", () => store.emit("example", doodle));
    return button;
  });
  byId("examples-sheet").append(make("div", { class: "doodles" }, buttons));
}

export function buildKeyList() {
  for (const [keys, action] of KEY_LIST) {
    const shown = keys.split(/[ ,]+/).map((key) => make("kbd", {}, [key]));
    byId("key-list").append(make("dt", {}, shown), make("dd", {}, [action]));
  }
}

/** Close a dialog by its cross, and by a press beside it (but not the one for the key). */
export function bindDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.querySelector("[data-close]")?.addEventListener("click", () => dialog.close());
    dialog.addEventListener("pointerdown", ({ target }) => {
      if (target === dialog && dialog.id !== "key-dialog") dialog.close();
    });
  }
}
