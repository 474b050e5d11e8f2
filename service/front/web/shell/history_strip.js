// The pictures so far: what was settled on or asked for, newest first.

import { make } from "./dom.js";

const MAX_PICTURES = 40;

/** Tells `choose` with {detail: picture}. */
export class Strip extends EventTarget {
  #list;
  #last = null;

  constructor(list) {
    super();
    this.#list = list;
  }

  /** Put a picture in front, once; the oldest falls off the end. */
  add(picture) {
    if (picture === this.#last) return;
    this.#last = picture;
    const url = URL.createObjectURL(picture.blob);
    const title = `${picture.fields.prompt || "no prompt"}, seed ${picture.seed}`;
    const button = make("button", { type: "button", title, "aria-label": title }, [
      make("img", { src: url, alt: "" }),
    ]);
    button.addEventListener("click", () => {
      this.#mark(button);
      this.dispatchEvent(new CustomEvent("choose", { detail: picture }));
    });
    const item = make("li", {}, [button]);
    item.url = url;
    this.#list.prepend(item);
    this.#mark(button);
    while (this.#list.children.length > MAX_PICTURES) this.#drop(this.#list.lastChild);
  }

  #mark(button) {
    for (const other of this.#list.querySelectorAll("button")) {
      other.setAttribute("aria-current", other === button);
    }
  }

  #drop(item) {
    URL.revokeObjectURL(item.url);
    item.remove();
  }
}
