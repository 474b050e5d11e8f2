// Light, dark, or the system's choice.

import { byId, setIcon } from "./dom.js";
import { choices } from "../io/storage.js";

const THEMES = ["auto", "light", "dark"];
const ICONS = { auto: "auto", light: "sun", dark: "moon" };

export function bindTheme() {
  const button = byId("theme");
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.setAttribute("aria-label", `Theme: ${theme}`);
    button.title = `Theme: ${theme}`;
    setIcon(button, ICONS[theme]);
  };
  const stored = choices.get("theme");
  apply(THEMES.includes(stored) ? stored : "auto");
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3];
    choices.set("theme", next);
    apply(next);
  });
}
