// Which refined picture is shown. Knows no canvas: decoding and drawing are arguments.

/**
 * The only owner of the rule that an older picture is never shown over a newer one.
 *
 * Each request takes a number from `nextId` when it looks at the drawing. An `answer` event carries
 * the picture with that id. The picture that is shown is `store.state.picture`. A `picture` event
 * follows each answer, with `isShown`.
 */
export class LatestPicture {
  #store;
  #decode;
  #draw;
  #lastId = Date.now(); // rises over reloads
  #shownId = -1;

  /** `decode(blob)` returns a promise of {width, height, close}, which `draw` puts on the page. */
  constructor({ store, decode, draw }) {
    this.#store = store;
    this.#decode = decode;
    this.#draw = draw;
    store.on("answer", async (picture) => {
      const isShown = await this.#present(picture);
      store.emit("picture", { picture, isShown });
    });
    store.on("show", (picture) => this.show(picture));
  }

  nextId() {
    this.#lastId += 1;
    return this.#lastId;
  }

  /** Show a picture that was shown before. It counts as the newest. */
  show(picture) {
    return this.#present({ ...picture, id: this.nextId() });
  }

  /** Show a picture unless a newer one is there. The last one stays until this one is decoded. */
  async #present(picture) {
    const bitmap = await this.#decode(picture.blob);
    const isShown = picture.id >= this.#shownId;
    if (isShown) {
      this.#shownId = picture.id;
      this.#draw(bitmap);
      this.#store.set({ picture: { ...picture, width: bitmap.width, height: bitmap.height } });
    }
    bitmap.close();
    return isShown;
  }
}
