// The curves of a stroke through the points of a pointer. Knows no canvas.

const THINNEST = 0.2; // of the brush's size, without pressure

/** Smooths points as they come: curves from midpoint to midpoint, wider with more pressure. */
export class Stroke {
  #size;
  #points = [];

  constructor(size) {
    this.#size = size;
  }

  get start() {
    return this.#points[0];
  }

  /** Add points {x, y, pressure}; return the new curves. */
  add(points) {
    return points.map((point) => this.#curveTo(point));
  }

  /** Return the curve from the last midpoint to the last point, for when the pen is lifted. */
  end() {
    const [before, last] = this.#points.slice(-2);
    if (!last) return [];
    return [{ from: middle(before, last), control: last, to: last, width: this.#widthAt(last) }];
  }

  /** Make the stroke one straight line from its start; return its curve. */
  straightTo(point) {
    this.#points = [this.start, point];
    const width = this.#widthAt(this.start);
    return [{ from: this.start, control: middle(this.start, point), to: point, width }];
  }

  #curveTo(point) {
    const last = this.#points.at(-1);
    const before = this.#points.at(-2) ?? last;
    this.#points.push(point);
    if (this.#points.length > 3) this.#points = [this.#points[0], ...this.#points.slice(-2)];
    const width = this.#widthAt(point);
    if (!last) return { from: point, control: point, to: point, width };
    return { from: middle(before, last), control: last, to: middle(last, point), width };
  }

  #widthAt({ pressure }) {
    return this.#size * (THINNEST + (1 - THINNEST) * pressure);
  }
}

function middle(one, two) {
  return { x: (one.x + two.x) / 2, y: (one.y + two.y) / 2 };
}

/** Only a pen's pressure counts: a mouse reports at most 0.5, and a finger's is unreliable. */
export function pressureOf({ pointerType, pressure }) {
  return pointerType === "pen" && pressure > 0 ? pressure : 1;
}
