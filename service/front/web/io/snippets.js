// A request as a program: curl, and the official SDKs for Python and TypeScript.

const PYTHON_METHODS = {
  "lcm-instant-refine": "perform_instant_refine",
  "generations-lcm": "create_lcm_generation",
  "lcm-inpainting": "perform_inpainting_lcm",
  "lcm-upscale": "perform_alchemy_upscale_lcm",
};
const TYPESCRIPT_METHODS = {
  "lcm-instant-refine": "performInstantRefine",
  "generations-lcm": "createLCMGeneration",
  "lcm-inpainting": "performInpaintingLCM",
  "lcm-upscale": "performAlchemyUpscaleLCM",
};

/** Return {curl, python, typescript}: programs that send these fields to a route of `origin`. */
export function snippets(origin, route, fields) {
  const files = { imageDataUrl: "drawing.jpg" };
  if (route === "lcm-inpainting") files.maskDataUrl = "mask.png";
  return {
    curl: curl(origin, route, fields, files),
    python: python(origin, route, fields, files),
    typescript: typescript(origin, route, fields, files),
  };
}

function mime(name) {
  return name.endsWith(".png") ? "image/png" : "image/jpeg";
}

function curl(origin, route, fields, files) {
  const pictures = Object.entries(files).map(
    ([name, file]) =>
      `  '"${name}": "data:${mime(file)};base64,' "$(base64 < ${file} | tr -d '\\n')" '", ' \\\n`,
  );
  const rest = shellQuote(JSON.stringify(fields).slice(1));
  return (
    `printf '%s' '{' \\\n${pictures.join("")}  ${rest} |\n` +
    `curl -sS ${shellQuote(`${origin}/${route}`)} -H 'Content-Type: application/json' \\\n` +
    `  -H "Authorization: Bearer $REFINE_API_KEY" -d @- |\n` +
    `python3 -c 'import base64, json, sys\n` +
    `job = json.load(sys.stdin)["lcmGenerationJob"]\n` +
    `open("refined.jpg", "wb").write(base64.b64decode(job["imageDataUrl"][0].partition(",")[2]))'\n`
  );
}

function python(origin, route, fields, files) {
  const pictures = Object.entries(files).map(
    ([name, file]) => `        "${snake(name)}": data_url("${file}"),\n`,
  );
  const rest = Object.entries(fields).map(
    ([name, value]) => `        "${snake(name)}": ${pythonLiteral(value)},\n`,
  );
  return `# pip install Leonardo-Ai-SDK
import base64
import os
from pathlib import Path

from leonardo_ai_sdk import LeonardoAiSDK


def data_url(name: str) -> str:
    kind = "png" if name.endswith(".png") else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(Path(name).read_bytes()).decode()


sdk = LeonardoAiSDK(
    server_url=${pythonLiteral(origin)},
    bearer_auth=os.environ.get("REFINE_API_KEY", "none"),
)
answer = sdk.realtime_canvas.${PYTHON_METHODS[route]}(
    request={
${pictures.join("")}${rest.join("")}    }
)
picture = answer.object.lcm_generation_job.image_data_url[0]
Path("refined.jpg").write_bytes(base64.b64decode(picture.partition(",")[2]))
`;
}

function typescript(origin, route, fields, files) {
  const pictures = Object.entries(files).map(
    ([name, file]) => `  ${name}: dataUrl("${file}"),\n`,
  );
  const rest = Object.entries(fields).map(
    ([name, value]) => `  ${name}: ${JSON.stringify(value)},\n`,
  );
  return `// npm install @leonardo-ai/sdk
import { readFileSync, writeFileSync } from "node:fs";
import { Leonardo } from "@leonardo-ai/sdk";

function dataUrl(name = "drawing.jpg") {
  const kind = name.endsWith(".png") ? "png" : "jpeg";
  return \`data:image/\${kind};base64,\${readFileSync(name).toString("base64")}\`;
}

const sdk = new Leonardo({
  serverURL: ${JSON.stringify(origin)},
  bearerAuth: process.env.REFINE_API_KEY ?? "none",
});
const answer = await sdk.realtimeCanvas.${TYPESCRIPT_METHODS[route]}({
${pictures.join("")}${rest.join("")}});
const picture = answer.object?.lcmGenerationJob?.imageDataUrl?.[0] ?? "";
writeFileSync("refined.jpg", Buffer.from(picture.split(",")[1] ?? "", "base64"));
`;
}

function shellQuote(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function snake(name) {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function pythonLiteral(value) {
  if (typeof value === "boolean") return value ? "True" : "False";
  return JSON.stringify(value); // JSON's literals of text and numbers are Python's, too
}
