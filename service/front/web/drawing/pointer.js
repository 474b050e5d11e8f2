// Turns the pointer, or the arrow keys, into strokes, fills and picks.

import { Stroke, pressureOf } from "./strokes.js";
import { rememberColour } from "./toolbox.js";

const KEY_STEP = 8; // pixels

/** Says what the keyboard does by `say` events. */
export class Pointer {
  #store;
  #surface;
  #drawing;
  #viewport;
  #ring;
  #stroke = null;
  #id = null;
  #box = null;
  #cursor = null; // of the keyboard, in pixels of the drawing

  constructor({ store, surface, ring, drawing, viewport }) {
    this.#store = store;
    this.#surface = surface;
    this.#ring = ring;
    this.#drawing = drawing;
    this.#viewport = viewport;
    const on = (name, handle) => surface.addEventListener(name, (event) => handle(event));
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event));
    on("pointercancel", (event) => event.pointerId === this.#id && drawing.cancelStroke());
    on("pointerleave", () => this.#hideRing());
    on("contextmenu", (event) => event.preventDefault());
    on("keydown", (event) => this.#key(event));
    on("blur", () => this.#leave());
    store.follow(["size", "width", "height"], (state) => this.#shapeRing(state));
    store.subscribe(["isDrawing"], ({ isDrawing }) => {
      if (!isDrawing) this.#stroke = this.#id = null;
    });
  }

  #down(event) {
    if (this.#stroke || event.button !== 0 || this.#viewport.pans(event)) return;
    this.#box = this.#surface.getBoundingClientRect(); // once a stroke: no layout while drawing
    this.#surface.classList.add("by-pointer"); // no frame around what is drawn on
    const point = this.#pointOf(event);
    this.#id = event.pointerId;
    this.#surface.setPointerCapture(event.pointerId);
    this.#use(point, event.altKey);
  }

  #use(point, isPicking) {
    const { tool, layer, colour, opacity, size } = this.#store.state;
    const x = pixelOf(point.x, this.#drawing.width);
    const y = pixelOf(point.y, this.#drawing.height);
    if (tool === "picker" || isPicking) {
      this.#store.set({ colour: this.#drawing.colourAt(x, y) });
      return;
    }
    if (layer === "paint" && tool !== "eraser") rememberColour(this.#store);
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

  // Arrow keys move a cursor; D lowers and lifts the pen, or applies the fill or the picker.
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
    else this.#store.emit("say", `${Math.round(this.#cursor.x)}, ${Math.round(this.#cursor.y)}`);
  }

  #press() {
    if (this.#stroke) {
      this.#lift();
      this.#store.emit("say", "pen up");
      return;
    }
    const { width, height } = this.#drawing;
    this.#cursor ??= { x: width / 2, y: height / 2, pressure: 1 };
    this.#showRingAt(this.#cursor);
    this.#use(this.#cursor, false);
    this.#store.emit("say", this.#stroke ? "pen down" : "done");
  }

  // Only a transform changes: moving the pointer must not cost a layout.
  #moveRing(event) {
    if (event.pointerType === "touch") this.#hideRing();
    else this.#placeRing(event.offsetX, event.offsetY);
  }

  #showRingAt({ x, y }) {
    const { clientWidth, clientHeight } = this.#surface;
    const { width, height } = this.#drawing;
    this.#placeRing((x / width) * clientWidth, (y / height) * clientHeight);
  }

  #placeRing(x, y) {
    this.#ring.style.transform = `translate(${x}px, ${y}px) translate(-50%, -50%)`;
    this.#ring.hidden = ["picker", "fill"].includes(this.#store.state.tool);
  }

  #shapeRing({ size, width, height }) {
    this.#ring.style.width = `${(size / width) * 100}%`;
    this.#ring.style.height = `${(size / height) * 100}%`;
  }

  #hideRing() {
    this.#ring.hidden = true;
  }
}

function pixelOf(value, size) {
  return Math.min(size - 1, Math.max(0, Math.floor(value)));
}
