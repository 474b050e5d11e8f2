// Prints the limits that the page reads in an OpenAPI document: node limits.mjs < openapi.json

import { readFileSync } from "node:fs";

import { SETTINGS, limitsOf } from "../../../service/front/web/panel/settings.js";

const limits = limitsOf(JSON.parse(readFileSync(0, "utf-8")));
const names = Object.keys(SETTINGS).filter((name) => name in limits);
console.log(JSON.stringify(Object.fromEntries(names.map((name) => [name, limits[name]]))));
