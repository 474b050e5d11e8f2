// A short fingerprint of a frame: equal frames are not sent twice.

/** Return 53 bits of a picture's bytes and its fields (cyrb53, in the public domain). */
export function fingerprint(bytes, fields) {
  let one = 0xdeadbeef;
  let two = 0x41c6ce57;
  const mix = (value) => {
    one = Math.imul(one ^ value, 2654435761);
    two = Math.imul(two ^ value, 1597334677);
  };
  for (const value of bytes) mix(value);
  for (const value of new TextEncoder().encode(canonical(fields))) mix(value);
  one = Math.imul(one ^ (one >>> 16), 2246822507) ^ Math.imul(two ^ (two >>> 13), 3266489909);
  two = Math.imul(two ^ (two >>> 16), 2246822507) ^ Math.imul(one ^ (one >>> 13), 3266489909);
  return 4294967296 * (2097151 & two) + (one >>> 0);
}

function canonical(fields) {
  return JSON.stringify(Object.keys(fields).sort().map((name) => [name, fields[name]]));
}
