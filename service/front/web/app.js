// Wires the page together: what is made here, and which one hears of which.

import { Access } from "./shell/access.js";
import { Api } from "./io/api.js";
import { Drawing } from "./drawing/canvas.js";
import { Connection } from "./live/connection.js";
import { byId, on, popover } from "./shell/dom.js";
import { DOODLES, drawDoodle } from "./drawing/doodles.js";
import { Jobs } from "./live/requests.js";
import { listenToKeys } from "./shell/keys.js";
import { Live } from "./live/live.js";
import { Notices } from "./shell/notices.js";
import { Palette } from "./drawing/palette.js";
import { Panel } from "./panel/panel.js";
import { takePictures } from "./io/import_image.js";
import { Pointer } from "./drawing/pointer.js";
import { CodeDialog, download, savePicture } from "./io/export.js";
import { INPAINT_ROUTE, LIVE_ROUTE, REFINE_ROUTE, Settings, randomSeed } from "./panel/settings.js";
import { bindDialogs, buildExamples, buildKeyList } from "./shell/dialogs.js";
import { Status } from "./shell/status.js";
import { choices } from "./io/storage.js";
import { Strip } from "./shell/history_strip.js";
import { bindTheme } from "./shell/theme.js";
import { Toolbox } from "./drawing/toolbox.js";
import { VIEWS, View } from "./shell/result_view.js";
import { Viewport } from "./drawing/viewport.js";
import { Work } from "./io/autosave.js";

const OPEN_AGAIN_MS = 1000;

const settings = new Settings();
const toolbox = new Toolbox();
const drawing = new Drawing(byId("paint"), byId("mask"));
const stage = byId("stage");
const viewport = new Viewport(stage);
const notices = new Notices(byId("notices"), byId("voice"));
const status = new Status();
const strip = new Strip(byId("strip"));
const view = new View({
  stage,
  canvas: byId("result"),
  caption: byId("caption"),
  split: byId("split-at"),
  lens: byId("lens-at"),
});
const access = new Access(byId("key-dialog"));
const api = new Api({ key: () => access.key, onLocked: lock });
const connection = new Connection({ api, hasKey: () => Boolean(access.key) });
const live = new Live({ drawing, settings, transport: connection });
const jobs = new Jobs({ api, drawing, settings, live, view });
const work = new Work({ drawing, settings, toolbox, view });
const panel = new Panel(settings);
const pointer = new Pointer({
  surface: byId("surface"), ring: byId("ring"), drawing, toolbox, viewport,
  say: (text) => notices.say(text),
});
const code = new CodeDialog(() => jobs.request(routeInHand()), notices);
const popovers = ["pill:status-sheet", "examples:examples-sheet", "save:save-sheet"].map((pair) =>
  popover(...pair.split(":").map(byId)),
);
new Palette(toolbox);
let hasLearned = false; // which styles and which model the service has

/** What the page would ask for: inpainting while a mask is being painted, else a refine. */
function routeInHand() {
  return toolbox.state.layer === "mask" && drawing.hasMask ? INPAINT_ROUTE : REFINE_ROUTE;
}

function lock() {
  status.connection("locked", "key needed");
  access.ask();
}

/** Show a picture; one that was settled on or asked for joins the strip. */
async function take(picture, isNewest = true) {
  status.picture(picture);
  if (isNewest) await view.show(picture);
  if (picture.route !== LIVE_ROUTE) strip.add(picture);
  if (!isNewest) return;
  if (picture.maskLooksInverted) notices.show("The mask is mostly white. Is it inverted?");
  work.changed();
}

function save(format) {
  if (!view.picture) return notices.show("There is no refined picture yet.");
  return view.busy(savePicture(api, view.picture, format)).catch((error) => notices.fail(error));
}

function choose(doodle) {
  settings.set({ prompt: doodle.prompt, style: doodle.style, background: doodle.background });
  drawing.redraw((context, width, height) => drawDoodle(context, doodle, width, height));
}

function pause() {
  live.pause(!live.isPaused);
  const name = live.isPaused ? "play" : "pause";
  byId("pause").setAttribute("aria-pressed", live.isPaused);
  byId("pause").querySelector("use").setAttribute("href", `web/icons.svg#${name}`);
  status.paused(live.isPaused);
}

function setView(mode) {
  view.mode = mode;
  document.querySelector(`input[name="view"][value="${view.mode}"]`).checked = true;
  choices.set("view", view.mode);
}

function openPanel(isOpen) {
  byId("panel").classList.toggle("is-open", isOpen);
  byId("panel-toggle").setAttribute("aria-expanded", isOpen);
}

function escape() {
  if (popovers.some((sheet) => sheet.close())) return;
  if (pointer.cancel() || jobs.cancel()) return;
  openPanel(false);
  notices.clear();
}

/** Draw what a picture was made of, and set what it was made with. */
async function restore() {
  const { route, fields, files, seed } = view.picture;
  const { steps, ...others } = fields;
  settings.set({ ...others, seed, ...(route !== LIVE_ROUTE && { steps }) });
  drawing.place(await createImageBitmap(files.imageDataUrl));
}

function onDrawing() {
  stage.classList.toggle("is-drawing", drawing.isDrawing);
}

function onHistory() {
  byId("undo").disabled = !drawing.history.canUndo;
  byId("redo").disabled = !drawing.history.canRedo;
}

function onResize() {
  const { width, height } = drawing;
  stage.style.setProperty("--ratio", width / height);
  settings.set({ width, height }); // an undo may have brought the old size back
}

function onSettings({ detail: names }) {
  const { width, height, background, prompt } = settings.values;
  if (names.has("width") || names.has("height")) drawing.resize(width, height);
  if (names.has("background")) {
    drawing.background = background;
    byId("background").value = background;
  }
  if (names.has("prompt") && byId("prompt").value !== prompt) byId("prompt").value = prompt;
}

const actions = {
  brush: () => toolbox.set({ tool: "brush" }),
  eraser: () => toolbox.set({ tool: "eraser" }),
  picker: () => toolbox.set({ tool: "picker" }),
  fill: () => toolbox.set({ tool: "fill" }),
  mask: () => toolbox.set({ tool: "mask" }),
  swap: () => toolbox.swapColours(),
  thinner: () => toolbox.scaleSize(-1),
  thicker: () => toolbox.scaleSize(1),
  undo: () => pointer.cancel() || drawing.history.undo(),
  redo: () => drawing.isDrawing || drawing.history.redo(),
  clear: () => drawing.clear(toolbox.state.layer),
  newSeed: () => settings.set({ seed: randomSeed() }),
  refine: () => jobs.refine(),
  pause,
  nextView: () => setView(VIEWS[(VIEWS.indexOf(view.mode) + 1) % VIEWS.length]),
  fit: () => viewport.fit(),
  save: () => save("jpeg"),
  help: () => byId("help-dialog").showModal(),
  escape,
};

function bindButtons() {
  for (const name of ["undo", "redo", "clear", "pause", "help"]) on(name, "click", actions[name]);
  on("inpaint", "click", () => jobs.inpaint());
  on("upscale", "click", () => jobs.upscale());
  on("mask-invert", "click", () => drawing.invertMask());
  on("mask-clear", "click", () => drawing.clear("mask"));
  on("to-canvas", "click", () => drawing.place(view.toCanvas()));
  on("restore", "click", restore);
  on("code", "click", () => code.open());
  on("save-jpeg", "click", () => save("jpeg"));
  on("save-png", "click", () => save("png"));
  on("save-drawing", "click", async () => download(await drawing.toPng(), "drawing.png"));
  on("panel-toggle", "click", () => openPanel(!byId("panel").classList.contains("is-open")));
  on("panel-close", "click", () => openPanel(false));
  on("background", "input", ({ target }) => settings.set({ background: target.value }));
  byId("views").addEventListener("change", ({ target }) => setView(target.value));
}

function bindPrompt() {
  on("prompt", "input", ({ target }) => settings.set({ prompt: target.value }));
  on("prompt", "keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("prompt-form").requestSubmit();
  });
  on("prompt-form", "submit", (event) => {
    event.preventDefault();
    jobs.refine();
  });
}

/** Learn what the service has to offer. */
async function learn() {
  try {
    const [styles, model] = await Promise.all([api.styles(), api.model()]);
    panel.showStyles(styles, (path) => api.thumbnail(path));
    if (model) {
      panel.showModel(model);
      const [quick, whole] = [LIVE_ROUTE, REFINE_ROUTE].map((route) => model.defaults[`/${route}`]);
      live.routesDiffer = quick.autoencoder !== whole.autoencoder;
    }
    if (model && !hasOwnSettings) settings.set(model.defaults[`/${REFINE_ROUTE}`]);
    hasOwnSettings = true;
    hasLearned = model !== null;
  } catch (error) {
    notices.fail(error);
  }
}

/** A ticket is good where it was issued alone, and another pod may have been asked: that is no key. */
async function openAgain() {
  status.connection("reconnecting", "reconnecting");
  await api.model().catch(() => {}); // which locks the page where the key itself is refused
  if (access.key) setTimeout(() => connection.open(), OPEN_AGAIN_MS);
}

function onConnection({ detail: { state, text } }) {
  if (state === "locked") return access.key ? openAgain() : lock();
  if (state === "reconnecting" && !hasLearned) learn(); // where no socket gets through, buttons do
  if (state !== "connected") status.connection(state, text);
  return undefined;
}

/** The service has told how it is: at the opening of the socket, and when that changes. */
function onHealth({ detail: { ready, reason, pending } }) {
  status.queue(pending);
  status.connection(ready ? "connected" : "loading", ready ? "connected" : "loading model");
  if (!ready) notices.say(reason);
  else if (!hasLearned) learn();
}

drawing.addEventListener("change", onDrawing);
drawing.addEventListener("history", onHistory);
drawing.addEventListener("resize", onResize);
settings.addEventListener("change", onSettings);
live.addEventListener("picture", ({ detail }) => take(detail));
live.addEventListener("settled", () => view.picture && strip.add(view.picture));
live.addEventListener("failure", ({ detail }) => notices.fail(detail));
live.addEventListener("frame", () => status.frames(live.counts));
strip.addEventListener("choose", ({ detail }) => view.show(detail));
access.addEventListener("key", () => connection.open());
connection.addEventListener("state", onConnection);
connection.addEventListener("ready", onHealth);
connection.addEventListener("status", onHealth);
connection.addEventListener("failure", ({ detail }) => notices.fail(detail));
jobs.onPicture = take;
jobs.onError = (error) => notices.fail(error);

window.addEventListener("unhandledrejection", ({ reason }) => notices.fail(reason));
bindTheme();
bindDialogs();
bindButtons();
bindPrompt();
buildKeyList();
buildExamples(choose);
takePictures((picture) => drawing.place(picture), (text) => notices.show(text, { isError: true }));
listenToKeys(actions, viewport);
setView(choices.get("view") ?? "split");
onHistory();
drawing.background = settings.values.background;
byId("background").value = settings.values.background;
let hasOwnSettings = await work.restore(); // else those of the model are taken
if (!hasOwnSettings) {
  choose(DOODLES[0]);
  drawing.history.clear();
}
work.watch();
document.documentElement.dataset.begun = "";
connection.open();
