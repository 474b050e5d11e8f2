// Pictures that are opened, pasted or dropped onto the page.

import { byId, on } from "../shell/dom.js";

const MAX_BYTES = 40 << 20;

/** Emit `import` with the bitmap of each picture, and a `notice` for each file that is not one. */
export function bindImport(store) {
  const refuse = (text) => store.emit("notice", { text, isError: true });
  const read = async (file) => {
    if (!file.type.startsWith("image/")) return refuse(`${file.name} is not a picture. Open a JPEG, PNG or WebP file.`);
    if (file.size > MAX_BYTES) return refuse(`${file.name} is larger than 40 MiB. Save it smaller, and open it again.`);
    try {
      return store.emit("import", await createImageBitmap(file));
    } catch {
      return refuse(`${file.name} cannot be read as a picture. Save it again as JPEG or PNG.`);
    }
  };
  on("open", "click", () => byId("file").click());
  on("file", "change", ({ target }) => {
    if (target.files[0]) read(target.files[0]);
    target.value = "";
  });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (!file) return;
    event.preventDefault();
    read(file);
  });
  bindDrops(read);
}

function bindDrops(read) {
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
    if (event.dataTransfer.files[0]) read(event.dataTransfer.files[0]);
  });
}
