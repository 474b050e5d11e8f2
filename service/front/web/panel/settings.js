// What a picture is asked for with: values, their bounds, and the words for them.

export const SIDES = [512, 640, 1024];
export const MAX_SEED = 9_999_999_998;
const MAX_PROMPT_CHARS = 1500;
export const LIVE_STEPS = 4;
export const LIVE_ROUTE = "generations-lcm";
export const REFINE_ROUTE = "lcm-instant-refine";
export const INPAINT_ROUTE = "lcm-inpainting";
export const UPSCALE_ROUTE = "lcm-upscale";

const GRID = 50; // points that an LCM is distilled on
const RANGES = {
  strength: [0.1, 1],
  steps: [4, 16],
  guidance: [0.5, 20],
  seed: [0, MAX_SEED],
  refineStrength: [0.5, 0.9],
};

export const DEFAULTS = Object.freeze({
  prompt: "",
  style: "NONE",
  strength: 0.6,
  steps: 6,
  guidance: 6,
  seed: 7,
  seedLocked: true,
  width: 512,
  height: 512,
  refineStrength: 0.6,
  refineCreative: false,
  background: "#ffffff",
});

/** The steps that really run: a small strength leaves fewer points of the grid than asked for. */
export function stepsRun(steps, strength) {
  return Math.min(steps, Math.max(1, Math.trunc(GRID * strength)));
}

export function strengthWord(strength) {
  const words = [[0.3, "faithful"], [0.5, "close"], [0.68, "balanced"], [0.86, "free"]];
  return (words.find(([limit]) => strength < limit) ?? [1, "creative"])[1];
}

export function randomSeed(random = Math.random) {
  return Math.floor(random() * (MAX_SEED + 1));
}

/** The body of a route without its pictures, in the words of the wire. */
export function toFields(values, route) {
  const { prompt, style, strength, steps, guidance, seed, width, height } = values;
  const fields = { prompt, style, strength, steps, guidance, seed, width, height };
  if (route === LIVE_ROUTE) fields.steps = Math.min(steps, LIVE_STEPS);
  if (route === UPSCALE_ROUTE) {
    delete fields.strength; // half of refineStrength, or more where creative: the server's rule
    fields.refineStrength = values.refineStrength;
    fields.refineCreative = values.refineCreative;
  }
  return fields;
}

/** Bring one value inside its bounds; undefined where it is not a value of that name at all. */
export function sound(name, value) {
  if (!(name in DEFAULTS) || typeof value !== typeof DEFAULTS[name]) return undefined;
  if (name === "width" || name === "height") return SIDES.includes(value) ? value : undefined;
  if (name === "background") return /^#[0-9a-f]{6}$/.test(value) ? value : undefined;
  if (name === "prompt") return value.slice(0, MAX_PROMPT_CHARS);
  if (!(name in RANGES)) return value;
  if (!Number.isFinite(value)) return undefined;
  const [least, most] = RANGES[name];
  const bounded = Math.min(most, Math.max(least, value));
  return name === "steps" || name === "seed" ? Math.round(bounded) : bounded;
}

/** The values, which tell of each change by a `change` event whose detail is the set of names. */
export class Settings extends EventTarget {
  #values = { ...DEFAULTS };

  get values() {
    return this.#values;
  }

  /** Take the sound ones of these values, and tell of those that differ. */
  set(changes) {
    const names = new Set();
    for (const [name, given] of Object.entries(changes)) {
      const value = sound(name, given);
      if (value === undefined || value === this.#values[name]) continue;
      this.#values = { ...this.#values, [name]: value };
      names.add(name);
    }
    if (names.size) this.dispatchEvent(new CustomEvent("change", { detail: names }));
  }
}
