// The brush's controls: tool, colours, size and opacity, bound to the toolbox.

import { byId, make, on } from "../shell/dom.js";

// The colours that the bundled model was trained with, by its own names.
const COLOURS = {
  red: "#db2124", orange: "#f5851a", yellow: "#fad926", green: "#33a63d", teal: "#149999",
  blue: "#2454db", purple: "#8033b3", pink: "#fa85bd", brown: "#784721", black: "#17171a",
  grey: "#87878a", white: "#f5f5f2",
};

export class Palette {
  #toolbox;

  constructor(toolbox) {
    this.#toolbox = toolbox;
    const swatches = Object.entries(COLOURS).map(([name, colour]) => this.#swatch(name, colour));
    byId("palette").replaceChildren(...swatches);
    for (const input of document.querySelectorAll('input[name="tool"]')) {
      input.addEventListener("change", () => toolbox.set({ tool: input.value }));
    }
    on("colour", "input", ({ target }) => toolbox.set({ colour: target.value }));
    on("other", "input", ({ target }) => toolbox.set({ other: target.value }));
    on("swap", "click", () => toolbox.swapColours());
    on("size", "input", ({ target }) => toolbox.set({ size: target.valueAsNumber }));
    on("opacity", "input", ({ target }) => toolbox.set({ opacity: target.valueAsNumber / 100 }));
    toolbox.addEventListener("change", () => this.#show());
    this.#show();
  }

  #show() {
    const { tool, layer, size, opacity, colour, other, recent } = this.#toolbox.state;
    document.querySelector(`input[name="tool"][value="${tool}"]`).checked = true;
    byId("colour").value = colour;
    byId("other").value = other;
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
    swatch.addEventListener("click", () => this.#toolbox.set({ colour }));
    return swatch;
  }
}
