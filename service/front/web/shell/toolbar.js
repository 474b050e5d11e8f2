// The buttons of the page, its prompt, and the states that they show.

import { byId, on, setIcon } from "./dom.js";

const BUTTONS = {
  undo: "undo", redo: "redo", clear: "clear", pause: "pause", help: "help", inpaint: "inpaint",
  upscale: "upscale", restore: "restore", "mask-invert": "invertMask", "mask-clear": "clearMask",
  "to-canvas": "toCanvas", "save-jpeg": "save", "save-png": "savePng",
  "save-drawing": "saveDrawing", "panel-toggle": "togglePanel", "panel-close": "closePanel",
};

/** Let each button run its action of `actions`, by name. */
export function bindToolbar(store, actions) {
  for (const [id, name] of Object.entries(BUTTONS)) on(id, "click", () => actions[name]());
  byId("views").addEventListener("change", ({ target }) => store.set({ view: target.value }));
  store.follow(["view"], ({ view }) => {
    document.querySelector(`input[name="view"][value="${view}"]`).checked = true;
  });
  store.follow(["canUndo", "canRedo"], ({ canUndo, canRedo }) => {
    byId("undo").disabled = !canUndo;
    byId("redo").disabled = !canRedo;
  });
  store.follow(["isPaused"], ({ isPaused }) => {
    byId("pause").setAttribute("aria-pressed", isPaused);
    setIcon(byId("pause"), isPaused ? "play" : "pause");
  });
  store.follow(["isPanelOpen"], ({ isPanelOpen }) =>
    byId("panel-toggle").setAttribute("aria-expanded", isPanelOpen),
  );
  bindPrompt(store, actions);
}

function bindPrompt(store, actions) {
  const prompt = byId("prompt");
  prompt.maxLength = store.state.limits.prompt.maxLength;
  on("prompt", "input", () => store.set({ prompt: prompt.value }));
  on("prompt", "keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("prompt-form").requestSubmit();
  });
  on("prompt-form", "submit", (event) => {
    event.preventDefault();
    actions.refine();
  });
  store.follow(["prompt"], (state) => {
    if (prompt.value !== state.prompt) prompt.value = state.prompt; // the caret stays while typing
  });
}
