// The controls of the brush: tool, colours, size and opacity.

import { byId, make, on } from "../shell/dom.js";
import { MAX_SIZE, TOOLS, chooseTool, swapColours } from "./toolbox.js";

// The colours that the bundled model was trained on, by the names in its prompts.
const COLOURS = {
  red: "#db2124", orange: "#f5851a", yellow: "#fad926", green: "#33a63d", teal: "#149999",
  blue: "#2454db", purple: "#8033b3", pink: "#fa85bd", brown: "#784721", black: "#17171a",
  grey: "#87878a", white: "#f5f5f2",
};

/** Bind the controls to the store, both ways. */
export class Palette {
  #store;

  constructor(store) {
    this.#store = store;
    const swatches = Object.entries(COLOURS).map(([name, colour]) => this.#swatch(name, colour));
    byId("palette").replaceChildren(...swatches);
    byId("size").max = MAX_SIZE;
    for (const input of document.querySelectorAll('input[name="tool"]')) {
      input.addEventListener("change", () => chooseTool(store, input.value));
    }
    on("colour", "input", ({ target }) => store.set({ colour: target.value }));
    on("other", "input", ({ target }) => store.set({ other: target.value }));
    on("swap", "click", () => swapColours(store));
    on("size", "input", ({ target }) => store.set({ size: target.valueAsNumber }));
    on("opacity", "input", ({ target }) => store.set({ opacity: target.valueAsNumber / 100 }));
    on("background", "input", ({ target }) => store.set({ background: target.value }));
    store.follow([...Object.keys(TOOLS), "background"], (state) => this.#show(state));
  }

  #show({ tool, layer, size, opacity, colour, other, recent, background }) {
    document.querySelector(`input[name="tool"][value="${tool}"]`).checked = true;
    byId("colour").value = colour;
    byId("other").value = other;
    byId("background").value = background;
    byId("size").value = size;
    byId("size-out").value = size;
    byId("opacity").value = Math.round(100 * opacity);
    byId("opacity-out").value = `${Math.round(100 * opacity)}%`;
    byId("mask-bar").hidden = layer !== "mask";
    byId("brushes").classList.toggle("is-masking", layer === "mask");
    this.#showRecent(recent);
    for (const swatch of document.querySelectorAll(".swatch")) {
      swatch.setAttribute("aria-pressed", swatch.dataset.colour === colour);
    }
  }

  #showRecent(recent) {
    const own = recent.filter((colour) => !Object.values(COLOURS).includes(colour));
    const shown = [...byId("recent").children].map((swatch) => swatch.dataset.colour);
    if (shown.join() === own.join()) return;
    byId("recent").replaceChildren(...own.map((colour) => this.#swatch(colour, colour)));
  }

  #swatch(name, colour) {
    const swatch = make("button", {
      type: "button", class: "swatch", title: name, "aria-label": name, "data-colour": colour,
    });
    swatch.style.background = colour;
    swatch.addEventListener("click", () => this.#store.set({ colour }));
    return swatch;
  }
}
