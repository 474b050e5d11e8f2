// The key, where the service asks for one: never in an address, kept only where the user says so.

const NAME = "instant-refine.key";

export class Access extends EventTarget {
  #dialog;
  #form;
  #key;

  constructor(dialog) {
    super();
    this.#dialog = dialog;
    this.#form = dialog.querySelector("form");
    this.#key = read(sessionStorage) ?? read(localStorage);
    this.#form.addEventListener("submit", (event) => this.#take(event));
  }

  get key() {
    return this.#key;
  }

  /** Ask for a key, once at a time. One that was refused is forgotten. */
  ask() {
    if (this.#dialog.open) return;
    const wasRefused = Boolean(this.#key);
    this.#forget();
    this.#dialog.querySelector("[data-refused]").hidden = !wasRefused;
    this.#dialog.showModal();
  }

  #take(event) {
    event.preventDefault();
    const { key, keep } = this.#form.elements;
    this.#key = key.value.trim();
    write(keep.checked ? localStorage : sessionStorage, this.#key);
    this.#form.reset();
    this.#dialog.close();
    this.dispatchEvent(new Event("key"));
  }

  #forget() {
    this.#key = null;
    for (const storage of [sessionStorage, localStorage]) write(storage, null);
  }
}

function read(storage) {
  try {
    return storage.getItem(NAME);
  } catch {
    return null;
  }
}

function write(storage, key) {
  try {
    if (key) storage.setItem(NAME, key);
    else storage.removeItem(NAME);
  } catch {
    // the browser keeps nothing: the key lives as long as the page
  }
}
