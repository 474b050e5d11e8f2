// Short notices at the foot of the page, and words for screen readers.

const SHOWN_MS = 6000;

/** Shows a `notice` ({text, isError}) and a `failure` (an Error), and reads out each `say`. */
export class Notices {
  #area;

  constructor(store, area, voice) {
    this.#area = area;
    store.on("notice", (notice) => this.#show(notice));
    store.on("failure", ({ name, message }) => {
      if (name !== "AbortError") this.#show({ text: message, isError: true });
    });
    store.on("say", (text) => (voice.textContent = text));
    store.on("dismiss", () => area.replaceChildren());
  }

  /** Show a sentence for a while; an equal one is shown for longer. */
  #show({ text, isError = false }) {
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
    setTimeout(() => item.remove(), SHOWN_MS);
  }
}
