// Downloads: the picture with its parameters, the drawing, and the request as code.

import { byId, make, on } from "../shell/dom.js";
import { snippets } from "./snippets.js";

export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Return a file name of the prompt's first words and the seed. */
function fileName({ fields, seed }, extension) {
  const words = fields.prompt.toLowerCase().match(/[a-z0-9]+/g) ?? ["picture"];
  return `${words.slice(0, 6).join("-")}-${seed}.${extension}`;
}

/**
 * Save the picture that is shown. A JPEG is the file as it came, with the parameters that the
 * service wrote into it. A PNG is requested again: equal requests give equal pictures.
 */
export async function savePicture(store, api, format) {
  const { picture } = store.state;
  if (!picture) {
    store.emit("notice", { text: "There is no refined picture yet. Draw something, or press Refine." });
    return;
  }
  if (`image/${format}` === picture.blob.type) {
    download(picture.blob, fileName(picture, format === "jpeg" ? "jpg" : format));
    return;
  }
  const fields = { ...picture.fields, seed: picture.seed, outputFormat: format };
  try {
    const again = await api.render(picture.route, fields, picture.files);
    download(again.blob, fileName(picture, format));
  } catch (error) {
    store.emit("failure", error);
  }
}

/** Copy an element's text. Browsers allow it only to pages over HTTPS or from this machine. */
async function copyText(element) {
  getSelection().selectAllChildren(element);
  try {
    await navigator.clipboard.writeText(element.textContent);
    return "Copied.";
  } catch {
    return "The browser does not let this page copy. The code is selected: press Ctrl C.";
  }
}

/** The dialog with the request as code. `request()` returns {route, fields, files}. */
export class CodeDialog {
  #dialog = byId("code-dialog");
  #request;
  #shown = null;

  constructor(store, request) {
    this.#request = request;
    byId("languages").addEventListener("change", () => this.#show());
    on("code", "click", () => this.#open());
    on("code-copy", "click", async () =>
      store.emit("notice", { text: await copyText(byId("code-text")) }),
    );
    on("code-files", "click", () => {
      const { imageDataUrl, maskDataUrl } = this.#shown.files;
      download(imageDataUrl, "drawing.jpg");
      if (maskDataUrl) download(maskDataUrl, "mask.png");
    });
  }

  async #open() {
    this.#shown = await this.#request();
    byId("code-files").lastElementChild.textContent = this.#shown.files.maskDataUrl
      ? "drawing.jpg, mask.png"
      : "drawing.jpg";
    this.#show();
    this.#dialog.showModal();
  }

  #show() {
    const base = new URL(".", location.href).href.replace(/\/$/, "");
    const { route, fields } = this.#shown;
    const language = this.#dialog.querySelector('input[name="language"]:checked').value;
    byId("code-text").textContent = snippets(base, route, fields)[language];
  }
}
