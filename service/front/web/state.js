// What the page's state consists of, and which values it takes.

import { TOOLS, checkedSize } from "./drawing/toolbox.js";
import { SETTINGS, checked } from "./panel/settings.js";
import { Store } from "./store.js";

/** Return the store of the page. `limits` are those of `limitsOf`; sizes start at the smallest. */
export function createStore(limits) {
  const [side] = limits.width.enum;
  const state = {
    ...SETTINGS,
    ...TOOLS,
    width: side,
    height: side,
    limits,
    styles: [{ name: "NONE", title: "None" }],
    model: null, // the loaded one, as /v1/models describes it
    routeDefaults: null, // the fields that each route fills in, by route
    connection: { state: "connecting", text: "connecting" }, // or connected, loading, ...
    isOpen: false, // whether the socket takes frames
    pending: 0, // jobs in the engine
    pace: {}, // of live frames: meanMs, intervalMs, pauseMs
    counts: { sent: 0, shown: 0, replaced: 0, skipped: 0 },
    picture: null, // shown: {blob, route, fields, files, seed, stepsRun, stages, width, height, ...}
    numRendering: 0, // requests by button that are running
    isDrawing: false,
    isPaused: false,
    canUndo: false,
    canRedo: false,
    view: "split",
    isPanelOpen: false,
  };
  return new Store(state, check);
}

function check(name, value, { limits }) {
  if (name in SETTINGS) return checked(name, value, limits);
  return name === "size" ? checkedSize(value) : value;
}
