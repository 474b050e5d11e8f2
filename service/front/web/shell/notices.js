// Short notices at the foot of the page, in place of dialogs that stop everything.

const STAYS_MS = 6000;

export class Notices {
  #area;
  #voice;

  constructor(area, voice) {
    this.#area = area;
    this.#voice = voice;
  }

  /** Show a sentence for a while; an equal one that is there stays longer. */
  show(text, { isError = false } = {}) {
    const same = [...this.#area.children].find((item) => item.firstChild.textContent === text);
    same?.remove();
    const item = document.createElement("div");
    item.className = isError ? "notice is-error" : "notice";
    item.setAttribute("role", isError ? "alert" : "status");
    const words = document.createElement("span");
    words.textContent = text;
    const close = document.createElement("button");
    close.type = "button";
    close.className = "notice-close";
    close.textContent = "×";
    close.setAttribute("aria-label", "Close this notice");
    close.addEventListener("click", () => item.remove());
    item.append(words, close);
    this.#area.append(item);
    setTimeout(() => item.remove(), STAYS_MS);
  }

  fail(error) {
    if (error.name !== "AbortError") this.show(error.message, { isError: true });
  }

  /** Say something to those who listen to the page. */
  say(text) {
    this.#voice.textContent = text;
  }

  clear() {
    this.#area.replaceChildren();
  }
}
