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

/** Close a dialog that has a cross by it, and by a press beside it. */
export function bindDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    const cross = dialog.querySelector("[data-close]");
    if (!cross) continue; // the dialog for the key needs an answer
    cross.addEventListener("click", () => dialog.close());
    dialog.addEventListener("pointerdown", ({ target }) => target === dialog && dialog.close());
  }
}
