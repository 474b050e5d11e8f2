import assert from "node:assert/strict";
import test from "node:test";

import { floodRegion } from "../../../service/front/web/drawing/flood_fill.js";
import { MAX_SIZE, chooseTool, rememberColour } from "../../../service/front/web/drawing/toolbox.js";
import { actionOf } from "../../../service/front/web/shell/keys.js";
import { Stroke, pressureOf } from "../../../service/front/web/drawing/strokes.js";
import { newStore } from "./fixtures.mjs";

/** A picture of rows of letters, one colour a letter. */
function pictureOf(rows) {
  const colours = { ".": [255, 255, 255], "#": [0, 0, 0], o: [250, 250, 250] };
  const data = rows.flatMap((row) => [...row].flatMap((letter) => [...colours[letter], 255]));
  return { data: Uint8ClampedArray.from(data), width: rows[0].length, height: rows.length };
}

function rowsOf({ mask }, width) {
  const letters = [...mask].map((inside) => (inside ? "x" : "-"));
  return letters.join("").match(new RegExp(`.{${width}}`, "g"));
}

test("a fill stops at another colour and covers its edge by a pixel", () => {
  const picture = pictureOf([
    ".........",
    ".#######.",
    ".#.....#.",
    ".#..o..#.",
    ".#.....#.",
    ".#######.",
    ".........",
  ]);
  const region = floodRegion(picture, 3, 3);
  assert.deepEqual(rowsOf(region, 9), [
    "---------",
    "--xxxxx--",
    "-xxxxxxx-",
    "-xxxxxxx-",
    "-xxxxxxx-",
    "--xxxxx--",
    "---------",
  ]);
  assert.deepEqual([region.left, region.top, region.right, region.bottom], [1, 1, 7, 5]);
});

test("a fill reaches every connected pixel, as a slow search does", () => {
  let seed = 5;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  for (let round = 0; round < 60; round += 1) {
    const rows = Array.from({ length: 12 }, () =>
      Array.from({ length: 15 }, () => (random() < 0.4 ? "#" : ".")).join(""),
    );
    const [x, y] = [Math.floor(random() * 15), Math.floor(random() * 12)];
    const inside = new Set([`${x},${y}`]);
    const todo = [[x, y]];
    while (todo.length) {
      const [px, py] = todo.pop();
      for (const [nx, ny] of [[px + 1, py], [px - 1, py], [px, py + 1], [px, py - 1]]) {
        if (rows[ny]?.[nx] !== rows[y][x] || inside.has(`${nx},${ny}`)) continue;
        inside.add(`${nx},${ny}`);
        todo.push([nx, ny]);
      }
    }
    const { mask } = floodRegion(pictureOf(rows), x, y);
    for (let py = 0; py < 12; py += 1) {
      for (let px = 0; px < 15; px += 1) {
        const isNear = [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]].some(([dx, dy]) =>
          inside.has(`${px + dx},${py + dy}`),
        );
        assert.equal(mask[py * 15 + px] === 1, isNear);
      }
    }
  }
});

test("a stroke's curves join without a gap, from the first point to the last", () => {
  const stroke = new Stroke(10);
  const points = Array.from({ length: 20 }, (_, index) => ({
    x: index * 3, y: (index * 7) % 11, pressure: 1,
  }));
  const curves = [...stroke.add(points.slice(0, 1)), ...stroke.add(points.slice(1)), ...stroke.end()];
  assert.deepEqual([curves[0].from.x, curves[0].from.y], [0, 0]);
  for (let index = 1; index < curves.length; index += 1) {
    assert.deepEqual([curves[index].from.x, curves[index].from.y], [curves[index - 1].to.x, curves[index - 1].to.y]);
  }
  assert.deepEqual([curves.at(-1).to.x, curves.at(-1).to.y], [57, points.at(-1).y]);
});

test("a light pen draws thinner; mouse and finger draw the full width", () => {
  const width = (pressure) => new Stroke(10).add([{ x: 0, y: 0, pressure }])[0].width;
  assert.equal(width(1), 10);
  assert.ok(width(0.2) < width(0.6) && width(0.6) < width(1));
  assert.equal(pressureOf({ pointerType: "mouse", pressure: 0.5 }), 1);
  assert.equal(pressureOf({ pointerType: "pen", pressure: 0.3 }), 0.3);
  assert.equal(pressureOf({ pointerType: "touch", pressure: 0 }), 1);
});

test("no key fires while a text field has the focus", () => {
  const key = (name, target, more = {}) => actionOf({ key: name, target, ...more });
  const texts = [
    { tagName: "TEXTAREA" }, { tagName: "INPUT", type: "number" }, { tagName: "DIV", isContentEditable: true },
  ];
  for (const target of texts) {
    for (const name of ["b", "n", "Enter", "Delete", "?", "Escape"]) assert.equal(key(name, target), null);
    assert.equal(key("z", target, { ctrlKey: true }), null);
  }
  const page = { tagName: "BODY" };
  assert.equal(key("B", page), "brush");
  assert.equal(key("z", page, { ctrlKey: true }), "undo");
  assert.equal(key("Z", page, { metaKey: true, shiftKey: true }), "redo");
  assert.equal(key("?", page, { shiftKey: true }), "help");
  assert.equal(key("0", page, { ctrlKey: true }), "fit");
  assert.equal(key("b", page, { ctrlKey: true }), null);
  assert.equal(key("Enter", { tagName: "BUTTON" }), null);
  assert.equal(key("Enter", { tagName: "INPUT", type: "color" }), null);
  assert.equal(key("b", { tagName: "INPUT", type: "range" }), "brush");
});

test("the eraser stays on its layer, the mask brush takes the mask, other tools the paint", () => {
  const store = newStore();
  const layers = ["eraser", "mask", "eraser", "fill", "mask", "picker"].map((tool) => {
    chooseTool(store, tool);
    return store.state.layer;
  });
  assert.deepEqual(layers, ["paint", "mask", "mask", "paint", "mask", "paint"]);
});

test("a size stays within its limits, and a colour is remembered once", () => {
  const store = newStore();
  for (const [size, expected] of [[500, MAX_SIZE], [-3, 1], [7.6, 8], [Number.NaN, 8]]) {
    store.set({ size });
    assert.equal(store.state.size, expected);
  }
  for (const colour of ["#111111", "#222222", "#111111"]) {
    store.set({ colour });
    rememberColour(store);
  }
  assert.deepEqual(store.state.recent, ["#111111", "#222222"]);
});
