// The values of a request: their limits, and the fields that each route takes.

export const LIVE_ROUTE = "generations-lcm";
export const REFINE_ROUTE = "lcm-instant-refine";
export const INPAINT_ROUTE = "lcm-inpainting";
export const UPSCALE_ROUTE = "lcm-upscale";

const GRID = 50; // timesteps that an LCM is distilled on: `original_inference_steps` in diffusers

/** The settings at the start. The service's own defaults replace each null. */
export const SETTINGS = Object.freeze({
  prompt: "",
  style: "NONE",
  strength: null,
  steps: null,
  guidance: null,
  seed: 7,
  seedLocked: true,
  width: null,
  height: null,
  refineStrength: null,
  refineCreative: false,
  background: "#ffffff",
});

/** Return the limits of each field, as JSON Schema, from the service's OpenAPI document. */
export function limitsOf(openapi) {
  const { requestBody } = openapi.paths[`/${UPSCALE_ROUTE}`].post;
  const { properties } = requestBody.content["application/json"].schema;
  const limits = Object.entries(properties).map(([name, field]) => [name, field.anyOf?.[0] ?? field]);
  return Object.fromEntries(limits);
}

/** Return a setting's value within its limits; undefined for a value of another type. */
export function checked(name, value, limits) {
  if (name === "background") return /^#[0-9a-f]{6}$/.test(value) ? value : undefined;
  if (name === "seedLocked") return typeof value === "boolean" ? value : undefined;
  const limit = limits[name];
  if (limit.enum) return limit.enum.includes(value) ? value : undefined;
  if (limit.type === "string") {
    return typeof value === "string" ? value.slice(0, limit.maxLength) : undefined;
  }
  if (limit.type === "boolean") return typeof value === "boolean" ? value : undefined;
  if (!Number.isFinite(value)) return undefined;
  const bounded = Math.min(limit.maximum, Math.max(limit.minimum, value));
  return limit.type === "integer" ? Math.round(bounded) : bounded;
}

/** Return the steps that run: a small strength leaves fewer timesteps than were asked for. */
export function stepsRun(steps, strength) {
  return Math.min(steps, Math.max(1, Math.trunc(GRID * strength)));
}

export function strengthWord(strength) {
  const words = [[0.3, "faithful"], [0.5, "close"], [0.68, "balanced"], [0.86, "free"]];
  return (words.find(([limit]) => strength < limit) ?? [1, "creative"])[1];
}

export function randomSeed(limits, random = Math.random) {
  return Math.floor(random() * (limits.seed.maximum + 1));
}

/** Return the body of a route without its pictures. The service fills in what is left out. */
export function toFields(state, route) {
  const { prompt, style, strength, steps, guidance, seed, width, height } = state;
  const fields = { prompt, style, strength, steps, guidance, seed, width, height };
  if (route === LIVE_ROUTE) fields.steps = liveSteps(state);
  if (route === UPSCALE_ROUTE) {
    fields.strength = null; // the service derives it from the two fields of this route
    fields.refineStrength = state.refineStrength;
    fields.refineCreative = state.refineCreative;
  }
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}

/** Return the steps of a live frame: few, and never more than were set; null before they are known. */
export function liveSteps({ steps, routeDefaults }) {
  return routeDefaults && Math.min(steps, routeDefaults[LIVE_ROUTE].steps);
}
