// Pictures from outside: opened, pasted or dropped onto the page.

import { byId, on } from "../shell/dom.js";

const MAX_BYTES = 40 << 20;

/** Call `place(bitmap)` for each picture that comes; what is none goes to `refuse(sentence)`. */
export function takePictures(place, refuse) {
  const take = async (file) => {
    if (!file.type.startsWith("image/")) return refuse(`${file.name} is not a picture.`);
    if (file.size > MAX_BYTES) return refuse(`${file.name} is larger than 40 MB.`);
    try {
      return place(await createImageBitmap(file));
    } catch {
      return refuse(`${file.name} cannot be read as a picture.`);
    }
  };
  on("open", "click", () => byId("file").click());
  on("file", "change", ({ target }) => {
    if (target.files[0]) take(target.files[0]);
    target.value = "";
  });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    take(file);
  });
  takeDrops(take);
}

function takeDrops(take) {
  const root = document.documentElement;
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    root.classList.add("is-dropping");
  });
  document.addEventListener("dragleave", ({ relatedTarget }) => {
    if (!relatedTarget) root.classList.remove("is-dropping");
  });
  document.addEventListener("drop", (event) => {
    root.classList.remove("is-dropping");
    if (!hasFiles(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}
