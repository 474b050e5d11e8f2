// The controls of the settings.

import { byId, make, setIcon } from "../shell/dom.js";
import { SETTINGS, liveSteps, randomSeed, stepsRun, strengthWord } from "./settings.js";

const RANGES = {
  strength: "strength", steps: "steps", guidance: "guidance", "refine-strength": "refineStrength",
};

/** Bind the controls to the store, both ways. `loadThumbnail(path)` returns an object URL. */
export class Panel {
  #store;
  #loadThumbnail;

  constructor(store, loadThumbnail) {
    this.#store = store;
    this.#loadThumbnail = loadThumbnail;
    const { limits } = store.state;
    for (const [id, name] of Object.entries(RANGES)) this.#bindRange(id, name, limits[name]);
    byId("refine-creative").addEventListener("change", ({ target }) =>
      store.set({ refineCreative: target.checked }),
    );
    this.#bindSeed(limits);
    const sides = limits.width.enum;
    const sizes = sides.flatMap((height) => sides.map((width) => ({ width, height })));
    byId("shapes").replaceChildren(...sizes.map((size) => this.#size(size)));
    store.follow(["styles"], ({ styles }) =>
      byId("styles").replaceChildren(...styles.map((style) => this.#style(style))),
    );
    store.follow(["isPanelOpen"], ({ isPanelOpen }) =>
      byId("panel").classList.toggle("is-open", isPanelOpen),
    );
    store.subscribe(["model"], ({ model }) => showModel(model, limits));
    const names = [...Object.keys(SETTINGS), "styles", "routeDefaults"];
    store.follow(names, (state) => this.#show(state));
  }

  #show(state) {
    put("strength", state.strength, strengthText(state));
    put("steps", state.steps, stepsText(state));
    put("guidance", state.guidance, String(state.guidance));
    put("refine-strength", state.refineStrength, state.refineStrength?.toFixed(2));
    byId("refine-creative").checked = state.refineCreative;
    if (document.activeElement !== byId("seed")) byId("seed").value = state.seed;
    byId("seed-lock").setAttribute("aria-pressed", state.seedLocked);
    setIcon(byId("seed-lock"), state.seedLocked ? "lock" : "unlock");
    byId("shape-out").textContent = `${state.width} × ${state.height}`;
    check("shape", `${state.width}x${state.height}`);
    check("style", state.style);
  }

  #style({ name, title, thumbnail, strength, guidance, available }) {
    const input = make("input", { type: "radio", name: "style", value: name });
    // A style may have a strength and a guidance that suit it best; the sliders show them.
    const changes = { style: name };
    if (strength) changes.strength = strength;
    if (guidance) changes.guidance = guidance;
    input.addEventListener("change", () => this.#store.set(changes));
    const words = make("span", { class: "style-title" }, [title]);
    const label = make("label", { title }, [input, this.#thumbnail(name, thumbnail), words]);
    if (available === false) {
      input.disabled = true;
      label.title = `${title}, does not fit the checkpoint`;
      input.setAttribute("aria-label", label.title);
    }
    return label;
  }

  /** A style's thumbnail once it is loaded; colours until then. The title beside it names it. */
  #thumbnail(name, path) {
    const picture = make("span", { class: "style-picture" });
    picture.style.background = gradientOf(name);
    const show = (src) => {
      const image = make("img", { src, alt: "" });
      image.addEventListener("load", () => URL.revokeObjectURL(src));
      picture.append(image);
    };
    if (path) this.#loadThumbnail(path).then(show, () => {}); // without it the colours remain
    return picture;
  }

  #bindRange(id, name, { minimum, maximum }) {
    Object.assign(byId(id), { min: minimum, max: maximum });
    byId(id).addEventListener("input", ({ target }) =>
      this.#store.set({ [name]: target.valueAsNumber }),
    );
  }

  #bindSeed(limits) {
    const { minimum, maximum } = limits.seed;
    const seed = Object.assign(byId("seed"), { min: minimum, max: maximum });
    seed.addEventListener("input", () => this.#store.set({ seed: seed.valueAsNumber }));
    seed.addEventListener("blur", () => this.#show(this.#store.state));
    byId("seed-dice").addEventListener("click", () => this.#store.set({ seed: randomSeed(limits) }));
    byId("seed-lock").addEventListener("click", () =>
      this.#store.set({ seedLocked: !this.#store.state.seedLocked }),
    );
  }

  #size({ width, height }) {
    const value = `${width}x${height}`;
    const label = `${width} by ${height}`;
    const input = make("input", { type: "radio", name: "shape", value, "aria-label": label });
    input.addEventListener("change", () => this.#store.set({ width, height }));
    const figure = make("span", { class: "shape" });
    Object.assign(figure.style, { width: `${width / 50}px`, height: `${height / 50}px` });
    return make("label", { title: `${width} × ${height}` }, [input, figure]);
  }
}

function showModel({ title, guidanceTrained, device, dtype }, limits) {
  byId("model-hint").textContent = `${title} on ${device}, ${dtype}`;
  if (!guidanceTrained) return;
  const [least, most] = guidanceTrained;
  const { minimum, maximum } = limits.guidance;
  byId("guidance-hint").textContent = `Trained from ${least} to ${most}`;
  byId("guidance-hint").hidden = least <= minimum && most >= maximum;
}

function strengthText({ strength }) {
  return `${strengthWord(strength)} · ${strength?.toFixed(2)}`;
}

function stepsText(state) {
  const { steps, strength } = state;
  const run = stepsRun(steps, strength);
  if (run < steps) return `${run} of ${steps} will run`;
  const live = liveSteps(state) ?? steps;
  return steps > live ? `${steps}, ${live} while you draw` : `${steps} will run`;
}

/** Colours for a style without a thumbnail, always the same. */
function gradientOf(name) {
  const hue = [...name].reduce((sum, letter) => sum + 37 * letter.charCodeAt(0), 0) % 360;
  return `linear-gradient(135deg, hsl(${hue} 60% 60%), hsl(${(hue + 60) % 360} 60% 75%))`;
}

/** Show a slider's value in words. Without a value it waits for the service's default. */
function put(id, value, text) {
  const isKnown = value !== null;
  byId(id).disabled = !isKnown;
  if (isKnown) byId(id).value = value;
  byId(`${id}-out`).value = isKnown ? text : "";
  byId(id).setAttribute("aria-valuetext", isKnown ? text : "not known yet");
}

function check(name, value) {
  const input = document.querySelector(`input[name="${name}"][value="${value}"]`);
  if (input) input.checked = true;
}
