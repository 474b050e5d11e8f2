// The state of the page in one place. Every module reads it here and changes it here.

/**
 * Holds one flat object. `set` changes it and emits `change`; `emit` sends any other event.
 *
 * `check(name, value, state)` returns the value to store, or undefined to refuse it.
 */
export class Store extends EventTarget {
  #state;
  #check;

  constructor(state, check = (_name, value) => value) {
    super();
    this.#state = state;
    this.#check = check;
  }

  get state() {
    return this.#state;
  }

  set(changes) {
    const changed = new Set();
    for (const [name, given] of Object.entries(changes)) {
      const value = this.#check(name, given, this.#state);
      if (value === undefined || value === this.#state[name]) continue;
      this.#state = { ...this.#state, [name]: value };
      changed.add(name);
    }
    if (changed.size) this.emit("change", changed);
  }

  emit(event, detail) {
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }

  on(event, react) {
    this.addEventListener(event, ({ detail }) => react(detail));
  }

  /** Call `react(state)` after a change of any of these names. */
  subscribe(names, react) {
    this.on("change", (changed) => names.some((name) => changed.has(name)) && react(this.#state));
  }

  /** Call `react(state)` now, and after a change of any of these names. */
  follow(names, react) {
    react(this.#state);
    this.subscribe(names, react);
  }
}
