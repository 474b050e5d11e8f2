// The settings' controls: each shows its value, and says in words what it will do.

import { LIVE_STEPS, SIDES, randomSeed, stepsRun, strengthWord } from "./settings.js";
import { byId, make } from "../shell/dom.js";

/** Bind the panel to the settings, both ways. */
export class Panel {
  #settings;

  constructor(settings) {
    this.#settings = settings;
    this.#bindRange("strength");
    this.#bindRange("steps");
    this.#bindRange("guidance");
    this.#bindRange("refine-strength", "refineStrength");
    byId("refine-creative").addEventListener("change", ({ target }) =>
      settings.set({ refineCreative: target.checked }),
    );
    this.#bindSeed();
    this.#buildShapes();
    this.showStyles([{ name: "NONE", title: "None" }]);
    settings.addEventListener("change", () => this.show());
    this.show();
  }

  /** Offer the service's styles. `load` fetches a thumbnail, as the address of an image. */
  showStyles(styles, load) {
    byId("styles").replaceChildren(...styles.map((style) => this.#style(style, load)));
    this.show();
  }

  showModel({ title, guidanceTrained, device, dtype }) {
    byId("model-hint").textContent = `${title} on ${device}, ${dtype}`;
    if (!guidanceTrained) return;
    const [least, most] = guidanceTrained;
    byId("guidance-hint").textContent = `Trained from ${least} to ${most}`;
    byId("guidance-hint").hidden = least <= 0.5 && most >= 20;
  }

  show() {
    const { values } = this.#settings;
    put("strength", values.strength, strengthText(values.strength));
    put("steps", values.steps, stepsText(values));
    put("guidance", values.guidance, String(values.guidance));
    put("refine-strength", values.refineStrength, values.refineStrength.toFixed(2));
    byId("refine-creative").checked = values.refineCreative;
    if (document.activeElement !== byId("seed")) byId("seed").value = values.seed;
    byId("seed-lock").setAttribute("aria-pressed", values.seedLocked);
    byId("seed-lock").querySelector("use").setAttribute(
      "href", `web/icons.svg#${values.seedLocked ? "lock" : "unlock"}`,
    );
    byId("shape-out").textContent = `${values.width} × ${values.height}`;
    check("shape", `${values.width}x${values.height}`);
    check("style", values.style);
  }

  #style({ name, title, thumbnail, strength, guidance, available }, load) {
    const input = make("input", { type: "radio", name: "style", value: name });
    // A style may look best with values of its own; the sliders show them.
    const choice = { style: name, strength, guidance };
    input.addEventListener("change", () => this.#settings.set(choice));
    const words = make("span", { class: "style-title" }, [title]);
    const label = make("label", { title }, [input, pictureOf(name, thumbnail, load), words]);
    if (available === false) {
      input.disabled = true;
      label.title = `${title}, does not fit the checkpoint`;
      input.setAttribute("aria-label", label.title);
    }
    return label;
  }

  #bindRange(id, name = id) {
    byId(id).addEventListener("input", ({ target }) =>
      this.#settings.set({ [name]: target.valueAsNumber }),
    );
  }

  #bindSeed() {
    byId("seed").addEventListener("input", ({ target }) =>
      this.#settings.set({ seed: target.valueAsNumber }),
    );
    byId("seed").addEventListener("blur", () => this.show());
    byId("seed-dice").addEventListener("click", () => this.#settings.set({ seed: randomSeed() }));
    byId("seed-lock").addEventListener("click", () =>
      this.#settings.set({ seedLocked: !this.#settings.values.seedLocked }),
    );
  }

  #buildShapes() {
    const shapes = SIDES.flatMap((height) => SIDES.map((width) => ({ width, height })));
    byId("shapes").replaceChildren(...shapes.map((shape) => this.#shape(shape)));
  }

  #shape({ width, height }) {
    const value = `${width}x${height}`;
    const label = `${width} by ${height}`;
    const input = make("input", { type: "radio", name: "shape", value, "aria-label": label });
    input.addEventListener("change", () => this.#settings.set({ width, height }));
    const figure = make("span", { class: "shape" });
    Object.assign(figure.style, { width: `${width / 50}px`, height: `${height / 50}px` });
    return make("label", { title: `${width} × ${height}` }, [input, figure]);
  }
}

function strengthText(strength) {
  return `${strengthWord(strength)} · ${strength.toFixed(2)}`;
}

function stepsText({ steps, strength }) {
  const run = stepsRun(steps, strength);
  if (run < steps) return `${run} of ${steps} will run`;
  return steps > LIVE_STEPS ? `${steps}, ${LIVE_STEPS} while you draw` : `${steps} will run`;
}

/** A style's thumbnail, once it is here; the words beside it say what it is. */
function pictureOf(name, thumbnail, load) {
  const picture = make("span", { class: "style-picture" });
  picture.style.background = coloursOf(name);
  const show = (src) => {
    const image = make("img", { src, alt: "" });
    image.addEventListener("load", () => URL.revokeObjectURL(src));
    picture.append(image);
  };
  if (thumbnail) load(thumbnail).then(show, () => {}); // without it the colours stay
  return picture;
}

/** Colours for a style until its thumbnail is there, or for good; always the same. */
function coloursOf(name) {
  const hue = [...name].reduce((sum, letter) => sum + 37 * letter.charCodeAt(0), 0) % 360;
  return `linear-gradient(135deg, hsl(${hue} 60% 60%), hsl(${(hue + 60) % 360} 60% 75%))`;
}

function put(id, value, text) {
  byId(id).value = value;
  byId(`${id}-out`).value = text;
  byId(id).setAttribute("aria-valuetext", text);
}

function check(name, value) {
  const input = document.querySelector(`input[name="${name}"][value="${value}"]`);
  if (input) input.checked = true;
}
