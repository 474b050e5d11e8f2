// Files that leave the page: the picture with its parameters, the drawing, and code.

import { byId, make, on } from "../shell/dom.js";
import { snippets } from "./snippets.js";

/** Hand a file to the browser's downloads. */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A name that tells one picture from another: its prompt's first words and its seed. */
function fileName({ fields, seed }, extension) {
  const words = fields.prompt.toLowerCase().match(/[a-z0-9]+/g) ?? ["picture"];
  return `${words.slice(0, 6).join("-")}-${seed}.${extension}`;
}

/**
 * Save a picture. A JPEG is the very bytes that came, with the parameters that the service wrote
 * into them; a PNG is asked for once more, since equal requests give equal pictures.
 */
export async function savePicture(api, picture, format) {
  if (`image/${format}` === picture.blob.type) {
    download(picture.blob, fileName(picture, format === "jpeg" ? "jpg" : format));
    return;
  }
  const fields = { ...picture.fields, seed: picture.seed, outputFormat: format };
  const again = await api.render(picture.route, fields, picture.files);
  download(again.blob, fileName(picture, format));
}

/** Copy an element's text. Browsers allow it to pages over https and of this machine alone. */
async function copied(element) {
  getSelection().selectAllChildren(element);
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    return false;
  }
}

/** The dialog with the same request as code. `request()` returns {route, fields, files}. */
export class CodeDialog {
  #dialog = byId("code-dialog");
  #request;
  #now = null;

  constructor(request, notices) {
    this.#request = request;
    byId("languages").addEventListener("change", () => this.#show());
    on("code-copy", "click", async () => {
      if (await copied(byId("code-text"))) notices.show("Copied.");
      else notices.show("The browser does not let this page copy; the code is selected for you.");
    });
    on("code-files", "click", () => {
      const { imageDataUrl, maskDataUrl } = this.#now.files;
      download(imageDataUrl, "drawing.jpg");
      if (maskDataUrl) download(maskDataUrl, "mask.png");
    });
  }

  async open() {
    this.#now = await this.#request();
    byId("code-files").lastElementChild.textContent = this.#now.files.maskDataUrl
      ? "drawing.jpg, mask.png"
      : "drawing.jpg";
    this.#show();
    this.#dialog.showModal();
  }

  #show() {
    const base = new URL(".", location.href).href.replace(/\/$/, "");
    const { route, fields } = this.#now;
    const language = this.#dialog.querySelector('input[name="language"]:checked').value;
    byId("code-text").textContent = snippets(base, route, fields)[language];
  }
}
