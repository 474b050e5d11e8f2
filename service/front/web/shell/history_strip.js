// The pictures so far: settled ones and those by button, newest first.

import { LIVE_ROUTE } from "../panel/settings.js";
import { make } from "./dom.js";

const MAX_PICTURES = 40;

/** Emits `show` with the picture that is clicked. */
export class HistoryStrip {
  #store;
  #list;
  #last = null; // the Blob of the newest picture

  constructor(store, list) {
    this.#store = store;
    this.#list = list;
    store.on("picture", ({ picture }) => picture.route !== LIVE_ROUTE && this.#add(picture));
    store.on("settled", () => store.state.picture && this.#add(store.state.picture));
  }

  /** Put a picture first, once; the oldest one is removed. */
  #add(picture) {
    if (picture.blob === this.#last) return;
    this.#last = picture.blob;
    const url = URL.createObjectURL(picture.blob);
    const title = `${picture.fields.prompt || "no prompt"}, seed ${picture.seed}`;
    const button = make("button", { type: "button", title, "aria-label": title }, [
      make("img", { src: url, alt: "" }),
    ]);
    button.addEventListener("click", () => {
      this.#mark(button);
      this.#store.emit("show", picture);
    });
    const item = make("li", {}, [button]);
    item.url = url;
    this.#list.prepend(item);
    this.#mark(button);
    while (this.#list.children.length > MAX_PICTURES) {
      URL.revokeObjectURL(this.#list.lastChild.url);
      this.#list.lastChild.remove();
    }
  }

  #mark(button) {
    for (const other of this.#list.querySelectorAll("button")) {
      other.setAttribute("aria-current", other === button);
    }
  }
}
