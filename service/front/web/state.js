// The state of the page, which values it takes, and the events beside `change`:
//
// drawn                    the pixels of the drawing changed
// answer, picture, settled a picture arrived, was shown or dropped, was final already (live/)
// show                     the user picks an earlier picture
// example, import          a doodle or a bitmap is to be drawn
// serving, unreachable     the engine takes requests; no socket opens
// locked, key              the service refuses the key; the user entered one
// notice, failure, dismiss a sentence or an Error for the user; remove all of them
// say                      words for screen readers

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
