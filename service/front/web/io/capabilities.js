// What the service offers: its styles, the loaded model, and the fields that each route fills in.

import { REFINE_ROUTE, SETTINGS } from "../panel/settings.js";

const RETRY_MS = 2000;

/** Sets `styles`, `model` and `routeDefaults` of the store when the service answers. */
export class Capabilities {
  #store;
  #api;
  #isLoading = false;

  constructor({ store, api }) {
    this.#store = store;
    this.#api = api;
    store.on("serving", () => this.#load());
    store.on("unreachable", () => this.#load()); // HTTP may get through where no socket does
  }

  async #load() {
    if (this.#isLoading || this.#store.state.model) return;
    this.#isLoading = true;
    try {
      const [styles, model] = await Promise.all([this.#api.styles(), this.#api.model()]);
      this.#store.set({ styles });
      if (model) this.#fillIn(model);
    } catch (error) {
      this.#store.emit("failure", error);
    } finally {
      this.#isLoading = false;
    }
    const { model, isOpen } = this.#store.state;
    if (!model && isOpen) setTimeout(() => this.#load(), RETRY_MS);
  }

  /** Settings that have no value yet get the model's defaults. */
  #fillIn(model) {
    const { state } = this.#store;
    const routeDefaults = Object.fromEntries(
      Object.entries(model.defaults).map(([path, fields]) => [path.slice(1), fields]),
    );
    const defaults = Object.assign({}, ...Object.values(routeDefaults), routeDefaults[REFINE_ROUTE]);
    const missing = Object.keys(SETTINGS).filter((name) => state[name] === null);
    const values = Object.fromEntries(missing.map((name) => [name, defaults[name]]));
    this.#store.set({ model, routeDefaults, ...values });
  }
}
