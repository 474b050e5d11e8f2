// Shorthands for the document.

export function byId(id) {
  return document.getElementById(id);
}

/** Make an element with attributes and children. */
export function make(tag, attributes = {}, children = []) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function on(id, name, handle) {
  byId(id).addEventListener(name, handle);
}

/** Show a symbol of icons.svg in a button. */
export function setIcon(button, name) {
  button.querySelector("use").setAttribute("href", `web/icons.svg#${name}`);
}

/** Open a popover by its button; close it by a press elsewhere, Esc or a choice in it. */
export function popover(button, sheet) {
  const set = (isOpen) => {
    sheet.hidden = !isOpen;
    button.setAttribute("aria-expanded", isOpen);
  };
  set(false);
  button.addEventListener("click", () => set(sheet.hidden));
  sheet.addEventListener("click", ({ target }) => {
    if (target.closest("button")) set(false);
  });
  document.addEventListener("pointerdown", ({ target }) => {
    if (!sheet.contains(target) && !button.contains(target)) set(false);
  });
  return {
    close() {
      const wasOpen = !sheet.hidden;
      set(false);
      return wasOpen;
    },
  };
}
