// Example drawings of things that the bundled model knows: shapes on a field of 100 x 100.

const SKY = "#a4cfec";
const MEADOW = "#6cae4c";
const SEA = "#2a6ca8";
const NIGHT = "#12163c";

const MOON =
  "M60 16 C34 14 24 40 36 58 C46 72 66 70 73 56 C58 62 46 54 46 40 C46 30 51 21 60 16 Z";
const HEART = "M50 80 C22 62 14 44 22 32 C30 20 46 24 50 38 C54 24 70 20 78 32 C86 44 78 62 50 80 Z";
const CROWN =
  "M50 12 C66 12 70 24 69 28 C80 32 80 48 70 54 C66 66 36 66 31 54 C20 50 20 34 31 28 " +
  "C30 20 38 12 50 12 Z";

const fill = (colour, path) => ({ path, fill: colour });
const line = (colour, width, path) => ({ path, stroke: colour, width });
const ground = (colour, path) => fill(colour, `${path} L101 101 L-1 101 Z`);

/** A star of five points, `size` units from its top to the next corner. */
function star(x, y, size) {
  const steps = [[1.3, 3], [3.1, 0.3], [-2.3, 2.1], [0.7, 3.1], [-2.8, -1.6], [-2.8, 1.6],
    [0.7, -3.1], [-2.3, -2.1], [3.1, -0.3]];
  return `M${x} ${y} ${steps.map(([dx, dy]) => `l${dx * size} ${dy * size}`).join(" ")} Z`;
}

export const DOODLES = [
  {
    name: "House",
    prompt: "a red house in a meadow",
    style: "ANIME",
    background: SKY,
    shapes: [
      ground(MEADOW, "M-1 61 C22 56 34 63 52 59 C70 56 84 60 101 58"),
      fill("#8e171b", "M62 29 L68 29 L67 45 L61 42 Z"),
      fill("#db2124", "M30 54 L70 53 L71 83 L31 84 Z"),
      fill("#8e171b", "M25 54 L50 29 L76 52 Z"),
      fill("#6b4122", "M40 63 L49 62 L48 84 L39 84 Z"),
      fill("#fce68c", "M55 61 L65 61 L65 71 L54 71 Z"),
    ],
  },
  {
    name: "Fish",
    prompt: "an orange fish in the sea",
    style: "NONE",
    background: "#bfe0f2",
    shapes: [
      ground(SEA, "M-1 28 C20 25 36 31 54 28 C72 25 86 30 101 27"),
      fill("#b85f14", "M72 60 L90 44 C86 56 87 64 91 76 Z"),
      fill("#b85f14", "M44 46 L58 34 L60 48 Z"),
      fill("#f5851a", "M20 60 C26 42 58 38 77 60 C60 82 27 78 20 60 Z"),
      fill("#ffffff", "M33 51 a5 5 0 1 0 .1 0 Z"),
      fill("#17171a", "M33 54 a2.4 2.4 0 1 0 .1 0 Z"),
    ],
  },
  {
    name: "Boat",
    prompt: "a white boat on the sea",
    style: "RENDER_3D",
    background: SKY,
    shapes: [
      fill("#fad926", "M78 12 a9 9 0 1 0 .1 0 Z"),
      ground(SEA, "M-1 64 C18 60 34 67 52 63 C70 60 84 66 101 62"),
      line("#6b4122", 2.4, "M51 24 L51 66"),
      fill("#f7f5eb", "M54 27 C68 38 74 48 76 59 L54 60 Z"),
      fill("#db2124", "M48 33 C40 43 34 52 31 60 L48 60 Z"),
      fill("#f5f5f2", "M24 65 L80 64 C76 78 70 82 62 82 L40 82 C31 82 27 76 24 65 Z"),
    ],
  },
  {
    name: "Moon",
    prompt: "a yellow moon at night",
    style: "FANTASY_ART",
    background: NIGHT,
    shapes: [
      ground("#1c2030", "M-1 76 C24 70 44 80 64 74 C80 70 90 75 101 72"),
      fill("#fad926", MOON),
      fill("#f4f2d8", star(18, 20, 1.2)),
      fill("#f4f2d8", star(82, 22, 1)),
    ],
  },
  {
    name: "Heart",
    prompt: "a pink heart on a plain white background",
    style: "RENDER_3D",
    background: "#f5f5f2",
    shapes: [
      fill("#fa85bd", HEART),
    ],
  },
  {
    name: "Mushroom",
    prompt: "a red mushroom in a meadow",
    style: "ILLUSTRATION",
    background: SKY,
    shapes: [
      ground(MEADOW, "M-1 70 C22 66 40 72 58 68 C76 65 88 70 101 67"),
      fill("#f5ead0", "M42 54 C44 66 40 78 39 84 L62 84 C60 76 57 66 59 54 Z"),
      fill("#db2124", "M20 56 C20 30 38 20 51 20 C66 20 82 32 81 56 C66 62 36 62 20 56 Z"),
      fill("#ffffff", "M37 32 a5 4.6 0 1 0 .1 0 Z"),
      fill("#ffffff", "M58 27 a4.4 4 0 1 0 .1 0 Z"),
      fill("#ffffff", "M68 42 a4.6 4.4 0 1 0 .1 0 Z"),
      fill("#ffffff", "M49 43 a4 3.6 0 1 0 .1 0 Z"),
    ],
  },
  {
    name: "Flower",
    prompt: "a purple flower in a meadow",
    style: "VIBRANT",
    background: SKY,
    shapes: [
      ground(MEADOW, "M-1 72 C22 67 40 74 58 70 C76 67 88 72 101 69"),
      line("#38852f", 3.4, "M50 46 C52 60 48 74 50 88"),
      fill("#38852f", "M50 74 C58 62 68 64 72 66 C66 76 58 78 50 76 Z"),
      fill("#8033b3", "M50 12 a9 11 0 1 0 .1 0 Z M50 42 a9 11 0 1 0 .1 0 Z"),
      fill("#8033b3", "M34 27 a11 9 0 1 0 .1 0 Z M66 27 a11 9 0 1 0 .1 0 Z"),
      fill("#fad926", "M50 29 a8 8 0 1 0 .1 0 Z"),
    ],
  },
  {
    name: "Tree",
    prompt: "a green tree in the snow",
    style: "SKETCH_COLOR",
    background: "#c9dcec",
    shapes: [
      ground("#f5f5f2", "M-1 74 C24 69 42 76 60 72 C78 69 90 74 101 71"),
      fill("#6b4122", "M46 62 L55 62 L57 86 L44 86 Z"),
      fill("#33a63d", CROWN),
    ],
  },
];

/** Draw a doodle, scaled to cover width x height. */
export function drawDoodle(context, doodle, width, height) {
  const scale = Math.max(width, height) / 100;
  context.save();
  context.translate((width - 100 * scale) / 2, (height - 100 * scale) / 2);
  context.scale(scale, scale);
  Object.assign(context, { lineCap: "round", lineJoin: "round" });
  for (const { path, fill: colour, stroke, width: lineWidth } of doodle.shapes) {
    const shape = new Path2D(path);
    if (colour) {
      context.fillStyle = colour;
      context.fill(shape);
    }
    if (stroke) {
      Object.assign(context, { strokeStyle: stroke, lineWidth });
      context.stroke(shape);
    }
  }
  context.restore();
}
