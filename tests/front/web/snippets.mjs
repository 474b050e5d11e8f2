// Prints the snippets for one request: node snippets.mjs ORIGIN ROUTE FIELDS

import { snippets } from "../../../service/front/web/io/snippets.js";

const [origin, route, fields] = process.argv.slice(2);
console.log(JSON.stringify(snippets(origin, route, JSON.parse(fields))));
