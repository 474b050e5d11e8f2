// Light, dark, or as the system says.

import { byId } from "./dom.js";
import { choices } from "../io/storage.js";

const THEMES = ["auto", "light", "dark"];
const ICONS = { auto: "auto", light: "sun", dark: "moon" };

export function bindTheme() {
  const button = byId("theme");
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", `Theme: ${theme}`);
    button.title = `Theme: ${theme}`;
    button.querySelector("use").setAttribute("href", `web/icons.svg#${ICONS[theme]}`);
  };
  const kept = choices.get("theme");
  apply(THEMES.includes(kept) ? kept : "auto");
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3];
    choices.set("theme", next);
    apply(next);
  });
}
