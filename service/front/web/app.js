// Builds the page: its modules, and the actions of its buttons and keys.

import { Drawing } from "./drawing/canvas.js";
import { DOODLES, drawDoodle } from "./drawing/doodles.js";
import { Palette } from "./drawing/palette.js";
import { Pointer } from "./drawing/pointer.js";
import { chooseTool, scaleSize, swapColours } from "./drawing/toolbox.js";
import { Viewport } from "./drawing/viewport.js";
import { Api, fetchOpenApi } from "./io/api.js";
import { Autosave } from "./io/autosave.js";
import { Capabilities } from "./io/capabilities.js";
import { CodeDialog, download, savePicture } from "./io/export.js";
import { bindImport } from "./io/import_image.js";
import { choices } from "./io/storage.js";
import { Connection } from "./live/connection.js";
import { LatestPicture } from "./live/latest_picture.js";
import { Live } from "./live/live.js";
import { Requests } from "./live/requests.js";
import { Panel } from "./panel/panel.js";
import { LIVE_ROUTE, limitsOf, randomSeed } from "./panel/settings.js";
import { Access } from "./shell/access.js";
import { bindDialogs, buildExamples, buildKeyList } from "./shell/dialogs.js";
import { byId, popover } from "./shell/dom.js";
import { HistoryStrip } from "./shell/history_strip.js";
import { bindKeys } from "./shell/keys.js";
import { Notices } from "./shell/notices.js";
import { ResultView, VIEWS } from "./shell/result_view.js";
import { bindStatus } from "./shell/status.js";
import { bindTheme } from "./shell/theme.js";
import { bindToolbar } from "./shell/toolbar.js";
import { createStore } from "./state.js";

const RETRY_MS = 1000;

bindTheme();
const store = createStore(await fetchLimits());
new Notices(store, byId("notices"), byId("voice"));
window.addEventListener("unhandledrejection", ({ reason }) => store.emit("failure", reason));

const access = new Access(store, byId("key-dialog"));
const api = new Api({ store, key: () => access.key });
const drawing = new Drawing(store, byId("paint"), byId("mask"));
const viewport = new Viewport(byId("stage"));
const result = new ResultView(store, { stage: byId("stage"), canvas: byId("result") });
const latest = new LatestPicture({
  store,
  decode: (blob) => createImageBitmap(blob),
  draw: (bitmap) => result.draw(bitmap),
});
const connection = new Connection({ store, api, hasKey: () => Boolean(access.key) });
const live = new Live({ store, drawing, transport: connection, nextId: () => latest.nextId() });
const requests = new Requests({ store, api, drawing, live });
const autosave = new Autosave({ store, drawing, latest });
new Capabilities({ store, api });
new Panel(store, (path) => api.thumbnail(path));
new Palette(store);
new Pointer({ store, surface: byId("surface"), ring: byId("ring"), drawing, viewport });
new HistoryStrip(store, byId("strip"));
new CodeDialog(store, () => requests.current());
bindStatus(store);
const popovers = ["pill:status-sheet", "examples:examples-sheet", "save:save-sheet"].map((pair) =>
  popover(...pair.split(":").map(byId)),
);

const actions = {
  brush: () => chooseTool(store, "brush"),
  eraser: () => chooseTool(store, "eraser"),
  picker: () => chooseTool(store, "picker"),
  fill: () => chooseTool(store, "fill"),
  mask: () => chooseTool(store, "mask"),
  swap: () => swapColours(store),
  thinner: () => scaleSize(store, -1),
  thicker: () => scaleSize(store, 1),
  undo: () => drawing.undo(),
  redo: () => drawing.redo(),
  clear: () => drawing.clear(store.state.layer),
  clearMask: () => drawing.clear("mask"),
  invertMask: () => drawing.invertMask(),
  newSeed: () => store.set({ seed: randomSeed(store.state.limits) }),
  refine: () => requests.refine(),
  inpaint: () => requests.inpaint(),
  upscale: () => requests.upscale(),
  pause: () => store.set({ isPaused: !store.state.isPaused }),
  nextView: () => store.set({ view: VIEWS[(VIEWS.indexOf(store.state.view) + 1) % VIEWS.length] }),
  pan: (isDown) => viewport.space(isDown),
  fit: () => viewport.fit(),
  save: () => savePicture(store, api, "jpeg"),
  savePng: () => savePicture(store, api, "png"),
  saveDrawing: async () => download(await drawing.toPng(), "drawing.png"),
  toCanvas: () => store.state.picture && drawing.place(result.canvas),
  restore,
  togglePanel: () => store.set({ isPanelOpen: !store.state.isPanelOpen }),
  closePanel: () => store.set({ isPanelOpen: false }),
  help: () => byId("help-dialog").showModal(),
  escape,
};

/** Return the limits of the settings; wait for the service where it is just restarting. */
async function fetchLimits() {
  for (;;) {
    try {
      return limitsOf(await fetchOpenApi());
    } catch (error) {
      byId("pill-text").textContent = error.message;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}

/** Restore the drawing and the settings that the shown picture was made from. */
async function restore() {
  const { picture } = store.state;
  if (!picture) return;
  const { steps, ...others } = picture.fields;
  const wholeSteps = picture.route === LIVE_ROUTE ? {} : { steps }; // a live frame takes fewer
  store.set({ ...others, seed: picture.seed, ...wholeSteps });
  drawing.place(await createImageBitmap(picture.files.imageDataUrl));
}

/** Close a sheet, else cancel a stroke or a request, else close the panel and the notices. */
function escape() {
  if (popovers.some((sheet) => sheet.close())) return;
  if (drawing.cancelStroke() || requests.cancel()) return;
  actions.closePanel();
  store.emit("dismiss");
}

function drawExample(doodle) {
  store.set({ prompt: doodle.prompt, style: doodle.style, background: doodle.background });
  drawing.redraw((context, width, height) => drawDoodle(context, doodle, width, height));
}

store.on("example", drawExample);
store.on("import", (bitmap) => drawing.place(bitmap));
store.on("picture", ({ picture, isShown }) => {
  if (!isShown || !picture.maskLooksInverted) return;
  store.emit("notice", { text: "The mask is mostly white. If it is inverted, press Invert." });
});
store.subscribe(["view"], ({ view }) => choices.set("view", view));
const view = choices.get("view");
if (VIEWS.includes(view)) store.set({ view });
bindDialogs();
bindToolbar(store, actions);
bindKeys(actions);
bindImport(store);
buildKeyList();
buildExamples(store);

if (!(await autosave.restore())) {
  drawExample(DOODLES[0]);
  drawing.forgetHistory();
}
autosave.watch();
document.documentElement.dataset.begun = "";
connection.open();
