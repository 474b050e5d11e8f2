// Undo and redo. Knows no pixels: an entry is anything that `swap` can exchange with the present.

export const MAX_ENTRIES = 200;
export const MAX_BYTES = 256 << 20;
export const LEAST_ENTRIES = 50;

/**
 * Entries have `bytes`. `swap(entry)` puts one in place and returns the entry that undoes that.
 * `onChange(history)` is called after every change.
 */
export class History {
  #past = [];
  #future = [];
  #swap;
  #onChange;

  constructor(swap, onChange = () => {}) {
    this.#swap = swap;
    this.#onChange = onChange;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  get size() {
    return this.#past.length;
  }

  /** Add the state before a change. Entries that were undone are dropped. */
  push(entry) {
    this.#past.push(entry);
    this.#future = [];
    this.#dropOldest();
    this.#onChange(this);
  }

  undo() {
    return this.#move(this.#past, this.#future);
  }

  redo() {
    return this.#move(this.#future, this.#past);
  }

  clear() {
    this.#past = [];
    this.#future = [];
    this.#onChange(this);
  }

  #move(from, to) {
    const entry = from.pop();
    if (!entry) return false;
    to.push(this.#swap(entry));
    this.#onChange(this);
    return true;
  }

  #dropOldest() {
    let bytes = this.#past.reduce((sum, entry) => sum + entry.bytes, 0);
    while (
      this.#past.length > MAX_ENTRIES ||
      (bytes > MAX_BYTES && this.#past.length > LEAST_ENTRIES)
    ) {
      bytes -= this.#past.shift().bytes;
    }
  }
}
