// A store with the limits and defaults of a service.

import { createStore } from "../../../service/front/web/state.js";

export const LIMITS = {
  prompt: { type: "string", maxLength: 1500 },
  style: { type: "string", maxLength: 200 },
  strength: { type: "number", minimum: 0.1, maximum: 1 },
  steps: { type: "integer", minimum: 4, maximum: 16 },
  guidance: { type: "number", minimum: 0.5, maximum: 20 },
  seed: { type: "integer", minimum: 0, maximum: 9_999_999_998 },
  width: { type: "integer", enum: [512, 640, 1024] },
  height: { type: "integer", enum: [512, 640, 1024] },
  refineStrength: { type: "number", minimum: 0.5, maximum: 0.9 },
  refineCreative: { type: "boolean" },
};

/** Return a store in which the model is known; live frames take 4 steps. */
export function newStore({ autoencoder = "full", ...values } = {}) {
  const store = createStore(LIMITS);
  const common = { strength: 0.6, guidance: 6 };
  const routeDefaults = {
    "generations-lcm": { ...common, steps: 4, autoencoder },
    "lcm-instant-refine": { ...common, steps: 6, autoencoder: "full" },
    "lcm-upscale": { ...common, steps: 6, refineStrength: 0.6, refineCreative: false },
  };
  store.set({ ...common, steps: 6, refineStrength: 0.6, routeDefaults, ...values });
  return store;
}
