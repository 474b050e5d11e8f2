// The keyboard shortcuts. None fires while a text field has the focus.

/** Rows of the `?` sheet: [keys as shown, what they do]. */
export const KEY_LIST = [
  ["B", "Brush"],
  ["E", "Eraser"],
  ["I", "Picker; Alt picks with any tool"],
  ["F", "Fill"],
  ["M", "Mask brush"],
  ["X", "Swap colours"],
  ["[  ]", "Thinner, thicker"],
  ["Shift", "Straight line"],
  ["Ctrl Z", "Undo"],
  ["Shift Ctrl Z", "Redo"],
  ["Space drag", "Pan"],
  ["Ctrl wheel", "Zoom"],
  ["Ctrl 0", "Fit"],
  ["Delete", "Clear"],
  ["N", "New seed"],
  ["Enter", "Refine"],
  ["P", "Pause live"],
  ["V", "Next view"],
  ["Ctrl S", "Save"],
  ["Esc", "Close or cancel"],
  ["?", "This list"],
  ["Arrows, D", "On the drawing: move, and lower or lift the pen"],
];

const PLAIN = {
  b: "brush", e: "eraser", i: "picker", f: "fill", m: "mask", x: "swap", "[": "thinner",
  "]": "thicker", delete: "clear", backspace: "clear", n: "newSeed", enter: "refine",
  p: "pause", v: "nextView", escape: "escape", "?": "help",
};
const WITH_CONTROL = { z: "undo", y: "redo", s: "save", 0: "fit" };
const PRESSED_INPUTS = new Set(["checkbox", "radio", "color", "file", "button", "submit"]);
const TEXT_INPUTS = new Set(["text", "number", "search", "password", "url", "email", "tel"]);

/** Return the name of a keydown's action, or null. */
export function actionOf({ key, ctrlKey, metaKey, altKey, shiftKey, target }) {
  if (isText(target)) return null;
  const name = key.toLowerCase();
  if (ctrlKey || metaKey) {
    if (altKey) return null;
    return name === "z" && shiftKey ? "redo" : (WITH_CONTROL[name] ?? null);
  }
  if (altKey || (name === "enter" && isPressable(target))) return null;
  return PLAIN[name] ?? null;
}

function isText(target) {
  const tag = target?.tagName;
  if (tag === "INPUT") return TEXT_INPUTS.has(target.type);
  return tag === "TEXTAREA" || tag === "SELECT" || Boolean(target?.isContentEditable);
}

// Space and Enter press these elements; they are no shortcuts there.
function isPressable(target) {
  if (target?.tagName === "INPUT") return PRESSED_INPUTS.has(target.type);
  return ["BUTTON", "A", "SUMMARY"].includes(target?.tagName);
}

/** Call `actions[name]()` for each shortcut, and `actions.pan(isDown)` for Space. */
export function bindKeys(actions) {
  window.addEventListener("keydown", (event) => {
    const isModal = document.querySelector("dialog[open]") !== null;
    if (event.defaultPrevented || isModal) return;
    if (event.key === " " && !isText(event.target) && !isPressable(event.target)) {
      event.preventDefault();
      actions.pan(true);
      return;
    }
    const action = actionOf(event);
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || ["undo", "redo", "thinner", "thicker"].includes(action)) actions[action]();
  });
  window.addEventListener("keyup", (event) => {
    if (event.key === " ") actions.pan(false);
  });
  window.addEventListener("blur", () => actions.pan(false));
}
