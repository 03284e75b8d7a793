/** Zooms a shared screen by wheel, pinch, drag, double click and the buttons of its bar. */

const MOST = 8;
const STEP = 1.5;

export class Zoom {
  #tile;
  #video;
  #scale = 1;
  #x = 0; // offset of the picture in CSS pixels, limited so that it always fills the tile
  #y = 0;
  #pointers = new Map();
  #changed;
  #stop = new AbortController();

  /** `changed(scale)` is called after each change; scale 1 shows the whole picture. */
  constructor(tile, changed) {
    this.#tile = tile.element;
    this.#video = tile.video;
    this.#changed = changed;
    const on = (type, then) => this.#tile.addEventListener(type, then, { signal: this.#stop.signal, passive: false });
    on('wheel', (event) => this.#wheel(event));
    on('dblclick', (event) => this.to(this.#scale > 1 ? 1 : Math.max(2, this.#real), event));
    on('pointerdown', (event) => this.#down(event));
    on('pointermove', (event) => this.#move(event));
    for (const type of ['pointerup', 'pointercancel']) on(type, (event) => this.#pointers.delete(event.pointerId));
  }

  get scale() {
    return this.#scale;
  }

  /** The scale at which one pixel of the picture is one device pixel. */
  get #real() {
    const { videoWidth, videoHeight, clientWidth, clientHeight } = this.#video;
    const fitted = Math.min(clientWidth / videoWidth, clientHeight / videoHeight);
    return fitted > 0 ? Math.min(MOST, Math.max(1, 1 / (fitted * devicePixelRatio))) : 1;
  }

  real() {
    this.to(this.#real);
  }

  by(direction) {
    this.to(this.#scale * STEP ** direction);
  }

  /** Sets the scale, keeping the point at the event's position (default: the centre) in place. */
  to(scale, at = null) {
    const box = this.#tile.getBoundingClientRect();
    const [px, py] = at ? [at.clientX - box.left, at.clientY - box.top] : [box.width / 2, box.height / 2];
    const next = Math.min(MOST, Math.max(1, scale));
    this.#x = px - ((px - this.#x) * next) / this.#scale;
    this.#y = py - ((py - this.#y) * next) / this.#scale;
    this.#scale = next;
    this.#apply(box);
    this.#changed(next);
  }

  pan(dx, dy) {
    this.#x += dx;
    this.#y += dy;
    this.#apply(this.#tile.getBoundingClientRect());
  }

  close() {
    this.#stop.abort();
    this.#video.style.removeProperty('transform');
    this.#tile.classList.remove('is-zoomed');
  }

  #apply({ width, height }) {
    this.#x = Math.min(0, Math.max(width - width * this.#scale, this.#x));
    this.#y = Math.min(0, Math.max(height - height * this.#scale, this.#y));
    this.#video.style.transform = this.#scale === 1 ? '' : `translate(${this.#x}px, ${this.#y}px) scale(${this.#scale})`;
    this.#tile.classList.toggle('is-zoomed', this.#scale > 1);
  }

  #wheel(event) {
    event.preventDefault();
    if (event.ctrlKey || this.#scale === 1) this.to(this.#scale * Math.exp(-event.deltaY / 300), event);
    else if (event.shiftKey) this.pan(-event.deltaY, 0);
    else this.to(this.#scale * Math.exp(-event.deltaY / 500), event);
  }

  #down(event) {
    if (event.target.closest('button')) return;
    this.#pointers.set(event.pointerId, event);
    if (this.#scale > 1) this.#tile.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const other = [...this.#pointers.values()].find((one) => one.pointerId !== event.pointerId);
    this.#pointers.set(event.pointerId, event);
    if (other) {
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
      this.to((this.#scale * apart(event)) / Math.max(1, apart(before)), middle);
    } else if (this.#scale > 1) this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
  }
}
