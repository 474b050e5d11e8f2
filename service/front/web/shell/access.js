// The API key: never part of a URL, and stored beyond the tab only if the user says so.

const NAME = "instant-refine.key";

/** Asks for the key on `locked`; emits `key` once it is entered. */
export class Access {
  #store;
  #dialog;
  #form;
  #key;

  constructor(store, dialog) {
    this.#store = store;
    this.#dialog = dialog;
    this.#form = dialog.querySelector("form");
    this.#key = read(sessionStorage) ?? read(localStorage);
    this.#form.addEventListener("submit", (event) => this.#submit(event));
    store.on("locked", () => this.#ask());
  }

  get key() {
    return this.#key;
  }

  /** Open the dialog. A refused key is removed. */
  #ask() {
    this.#store.set({ connection: { state: "locked", text: "key needed" } });
    if (this.#dialog.open) return;
    const wasRefused = Boolean(this.#key);
    this.#remove();
    this.#dialog.querySelector("[data-refused]").hidden = !wasRefused;
    this.#dialog.showModal();
  }

  #submit(event) {
    event.preventDefault();
    const { key, keep } = this.#form.elements;
    this.#key = key.value.trim();
    write(keep.checked ? localStorage : sessionStorage, this.#key);
    this.#form.reset();
    this.#dialog.close();
    this.#store.emit("key");
  }

  #remove() {
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
    // the browser stores nothing: the key lasts as long as the page
  }
}
