// What the pointer, or the arrow keys in its place, does to the drawing.

import { Stroke, pressureOf } from "./strokes.js";

export const TOOLS = ["brush", "eraser", "picker", "fill", "mask"];
export const MAX_SIZE = 160;
const RECENT = 6;
const KEY_STEP = 8;

/** The tool in hand, with its size, opacity and colours; tells of changes by `change`. */
export class Toolbox extends EventTarget {
  state = {
    tool: "brush",
    layer: "paint",
    size: 24,
    opacity: 1,
    colour: "#db2124",
    other: "#ffffff",
    recent: [],
  };

  set(changes) {
    const state = { ...this.state, ...changes };
    state.size = Math.min(MAX_SIZE, Math.max(1, Math.round(state.size)));
    if (changes.tool === "mask") state.layer = "mask";
    if (changes.tool && changes.tool !== "mask" && changes.tool !== "eraser") state.layer = "paint";
    this.state = state;
    this.dispatchEvent(new Event("change"));
  }

  swapColours() {
    this.set({ colour: this.state.other, other: this.state.colour });
  }

  /** Thicker or thinner by a fifth, and by a pixel at least. */
  scaleSize(direction) {
    const { size } = this.state;
    this.set({ size: size + direction * Math.max(1, Math.round(size / 5)) });
  }

  /** Take note of a colour that was drawn with. */
  used(colour) {
    const recent = [colour, ...this.state.recent.filter((other) => other !== colour)];
    this.set({ recent: recent.slice(0, RECENT) });
  }
}

/** Turns pointer events on the drawing into strokes, fills and picks. */
export class Pointer {
  #surface;
  #drawing;
  #toolbox;
  #viewport;
  #ring;
  #say;
  #stroke = null;
  #id = null;
  #box = null;
  #cursor = null; // of the keyboard, in pixels of the drawing

  constructor({ surface, ring, drawing, toolbox, viewport, say }) {
    this.#surface = surface;
    this.#ring = ring;
    this.#drawing = drawing;
    this.#toolbox = toolbox;
    this.#viewport = viewport;
    this.#say = say;
    const on = (name, handle) => surface.addEventListener(name, (event) => handle(event));
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event));
    on("pointercancel", () => this.cancel());
    on("pointerleave", () => this.#hideRing());
    on("contextmenu", (event) => event.preventDefault());
    on("keydown", (event) => this.#key(event));
    on("blur", () => this.#leave());
    toolbox.addEventListener("change", () => this.#shapeRing());
  }

  get isDown() {
    return this.#stroke !== null;
  }

  /** Give the stroke up, as Esc asks. */
  cancel() {
    if (!this.#stroke) return false;
    this.#stroke = null;
    this.#id = null;
    this.#drawing.cancelStroke();
    return true;
  }

  #down(event) {
    if (this.#stroke || event.button !== 0 || this.#viewport.takes(event)) return;
    this.#box = this.#surface.getBoundingClientRect(); // once a stroke: no layout while drawing
    this.#surface.classList.add("by-pointer"); // no frame around what is drawn on
    const point = this.#pointOf(event);
    this.#id = event.pointerId;
    this.#surface.setPointerCapture(event.pointerId);
    this.#use(point, event.altKey);
  }

  #use(point, isPicking) {
    const { tool, layer, colour, opacity, size } = this.#toolbox.state;
    const [x, y] = [this.#pixel(point.x, this.#drawing.width), this.#pixel(point.y, this.#drawing.height)];
    if (tool === "picker" || isPicking) {
      this.#toolbox.set({ colour: this.#drawing.colourAt(x, y) });
      return;
    }
    if (layer === "paint" && tool !== "eraser") this.#toolbox.used(colour);
    if (tool === "fill") {
      this.#drawing.fill(x, y, { layer, colour, opacity });
      return;
    }
    this.#stroke = new Stroke(size);
    this.#drawing.beginStroke({ layer, colour, opacity, isEraser: tool === "eraser" });
    this.#drawing.addCurves(this.#stroke.add([point]));
  }

  #move(event) {
    this.#moveRing(event);
    if (!this.#stroke || event.pointerId !== this.#id) return;
    if (event.shiftKey) {
      this.#drawing.restartStroke();
      this.#drawing.addCurves(this.#stroke.straightTo(this.#pointOf(event)));
      return;
    }
    const events = event.getCoalescedEvents?.() ?? [];
    const points = (events.length ? events : [event]).map((each) => this.#pointOf(each));
    this.#drawing.addCurves(this.#stroke.add(points));
  }

  #up(event) {
    if (event.pointerId === this.#id) this.#lift();
  }

  #leave() {
    this.#surface.classList.remove("by-pointer");
    this.#lift();
  }

  #lift() {
    if (!this.#stroke) return;
    this.#drawing.addCurves(this.#stroke.end());
    this.#stroke = null;
    this.#id = null;
    this.#drawing.endStroke();
  }

  #pointOf(event) {
    const { left, top, width, height } = this.#box;
    return {
      x: ((event.clientX - left) / width) * this.#drawing.width,
      y: ((event.clientY - top) / height) * this.#drawing.height,
      pressure: pressureOf(event),
    };
  }

  #pixel(value, size) {
    return Math.min(size - 1, Math.max(0, Math.floor(value)));
  }

  // Arrow keys move a cursor; D sets the pen down and lifts it, or uses the fill or the picker.
  #key(event) {
    const step = event.shiftKey ? 4 * KEY_STEP : KEY_STEP;
    const move = {
      ArrowLeft: [-step, 0],
      ArrowRight: [step, 0],
      ArrowUp: [0, -step],
      ArrowDown: [0, step],
    }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (move) this.#moveCursor(...move);
    else if (event.key.toLowerCase() === "d") this.#press();
    else return;
    this.#surface.classList.remove("by-pointer");
    event.preventDefault();
  }

  #moveCursor(dx, dy) {
    const { width, height } = this.#drawing;
    const { x, y } = this.#cursor ?? { x: width / 2, y: height / 2 };
    this.#cursor = {
      x: Math.min(width, Math.max(0, x + dx)),
      y: Math.min(height, Math.max(0, y + dy)),
      pressure: 1,
    };
    this.#showRingAt(this.#cursor);
    if (this.#stroke) this.#drawing.addCurves(this.#stroke.add([this.#cursor]));
    else this.#say(`${Math.round(this.#cursor.x)}, ${Math.round(this.#cursor.y)}`);
  }

  #press() {
    if (this.#stroke) {
      this.#lift();
      this.#say("pen up");
      return;
    }
    const { width, height } = this.#drawing;
    this.#cursor ??= { x: width / 2, y: height / 2, pressure: 1 };
    this.#showRingAt(this.#cursor);
    this.#use(this.#cursor, false);
    this.#say(this.#stroke ? "pen down" : "done");
  }

  #moveRing(event) {
    if (event.pointerType === "touch") return this.#hideRing();
    const box = this.#box && this.#stroke ? this.#box : this.#surface.getBoundingClientRect();
    this.#placeRing(
      ((event.clientX - box.left) / box.width) * 100,
      ((event.clientY - box.top) / box.height) * 100,
    );
  }

  #showRingAt({ x, y }) {
    this.#placeRing((x / this.#drawing.width) * 100, (y / this.#drawing.height) * 100);
  }

  #placeRing(left, top) {
    Object.assign(this.#ring.style, { left: `${left}%`, top: `${top}%` });
    this.#ring.hidden = this.#toolbox.state.tool === "picker" || this.#toolbox.state.tool === "fill";
    this.#shapeRing();
  }

  #shapeRing() {
    const { size } = this.#toolbox.state;
    this.#ring.style.width = `${(size / this.#drawing.width) * 100}%`;
    this.#ring.style.height = `${(size / this.#drawing.height) * 100}%`;
  }

  #hideRing() {
    this.#ring.hidden = true;
  }
}
